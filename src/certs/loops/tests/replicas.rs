//! One of several replicas asks: what happens when it stops being the one, and what people are told meanwhile.

use super::super::super::standing::AttemptResult;
use super::*;

const CAA: Reply = Reply::Fails(500, "400 urn:ietf:params:acme:error:caa: no");

#[tokio::test(start_paused = true)]
async fn s18_an_order_ends_with_the_role_and_its_result_is_nobodys() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Never, Reply::Certificate]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(scene.fake.state().open, 1);
    scene.role.send_replace(Role::Reader);
    sleep(Duration::from_millis(1)).await;
    let calls = || {
        let state = scene.fake.state();
        (state.open, state.aborted)
    };
    assert_eq!(calls(), (0, 1), "at once");
    assert!(scene.fake.state().records.is_empty());
    assert!(scene.loops.ledger().entries().is_empty(), "nothing is written");
    sleep(DAY).await;
    assert_eq!((scene.fake.calls().len(), scene.standing(A).await.phase), (1, Phase::NotWriter));
    scene.role.send_replace(Role::Writer);
    sleep(MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_replica_is_ordering_is_left_to_it_until_its_claim_ends() {
    let fake = Fake::new();
    let until = later(fake.now(), 35 * MINUTE);
    fake.state().taken = Some(Taken { holder: "pg-1_u".to_owned(), until });
    let scene = Scene::new(fake, Growth::Steps).await;
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(30 * MINUTE).await;
    assert_eq!((scene.fake.calls().len(), scene.standing(A).await.phase), (0, Phase::Taken(until)));
    sleep(6 * MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_up_what_was_claimed() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Never]);
    scene.loops.ensure(&config(&[A, B])).await.unwrap();
    sleep(MINUTE).await;
    scene.loops.stop().await;
    assert_eq!(scene.fake.state().given_up, [A]);
    assert_eq!(scene.fake.state().open, 0);
    assert_eq!(scene.loops.live().await, 0);
}

#[tokio::test(start_paused = true)]
async fn people_are_told_of_certificates_and_once_an_hour_of_failures() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Refused, CAA, CAA, CAA, CAA, Reply::Certificate]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(30 * MINUTE).await;
    let reasons = || scene.fake.state().told.iter().map(|news| news.reason).collect::<Vec<_>>();
    assert_eq!(reasons(), ["CertFailed"], "three failures within the hour");
    sleep(3 * DAY).await;
    assert_eq!(reasons(), ["CertFailed", "CertFailed", "CertIssued"]);
    let standing = scene.standing(A).await;
    let count = |result| standing.results.of(result);
    assert_eq!((count(Class::Transient.into()), count(Class::Authority.into())), (1, 4));
    assert_eq!((count(AttemptResult::OK), count(AttemptResult::UNCHANGED) > 0), (1, true));
}

#[tokio::test(start_paused = true)]
async fn a_start_without_spread_asks_at_once_but_for_what_failed_before() {
    let fake = Fake::new();
    let due = later(fake.now(), 10 * HOUR);
    fake.state().records.insert(A.to_owned(), Record::failed(4, due, Class::Authority, "caa"));
    fake.state().records.insert(B.to_owned(), Record::succeeded(due));
    let (_allowed, allowed) = watch::channel(Allowed::Unusable);
    let (_role, role) = watch::channel(Role::Writer);
    let options = Options { growth: Growth::Steps, start: Start::Now, concurrent: CONCURRENT, node: Node::Leave };
    let loops = Loops::new(fake.clone(), options, allowed, role, CancellationToken::new()).await;
    loops.ensure(&config(&[A, B])).await.unwrap();
    let settled = crate::certs::manager::settled(&loops, MINUTE).await;
    let phases: Vec<_> = settled.iter().map(|(_, standing)| (&standing.phase, standing.attempts)).collect();
    assert_eq!(phases[0], (&Phase::Waiting(due), 0), "it failed, and its time has not come");
    assert_eq!((phases[1].1, fake.calls().len()), (1, 1));
}
