//! One of several replicas asks: what happens when it stops being the one, and what people are told meanwhile.

use super::super::super::budget::Entry;
use super::super::super::office::Office;
use super::super::super::standing::AttemptResult;
use super::*;

const CAA: Reply = Reply::Fails(500, "400 urn:ietf:params:acme:error:caa: no");

fn orders(loops: &Loops<Fake>) -> Vec<Kind> {
    loops.ledger().entries().iter().map(|entry| entry.kind).collect()
}

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
    assert_eq!(orders(&scene.loops), [Kind::BrokenOff], "that there was one, and no more");
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
async fn w03_a_role_that_changes_hands_does_not_cut_short_what_failed() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [CAA]);
    scene.loops.ensure(&config(&[A, B])).await.unwrap();
    sleep(20 * MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 3 + 1, "at once, after 1 and after 10 minutes; and the other name");
    // Another replica has failed since, and noted it.
    scene.role.send_replace(Role::Reader);
    let due = later(scene.fake.now(), 2 * DAY);
    let record = Record::failed(7, due, Class::Authority, "caa");
    scene.fake.state().records.insert(A.to_owned(), record);
    for _ in 0..10 {
        scene.role.send_replace(Role::Writer);
        sleep(MINUTE).await;
        scene.role.send_replace(Role::Reader);
        sleep(MINUTE).await;
    }
    scene.role.send_replace(Role::Writer);
    sleep(DAY).await;
    let of = |name: &str| scene.fake.state().calls.iter().filter(|(_, called, _)| called == name).count();
    assert_eq!(of(A), 3, "as long as that one wanted");
    assert!(of(B) > 10, "what is well is looked at each time");
    sleep(DAY).await;
    assert_eq!((of(A), scene.standing(A).await.record.failures), (4, 8));
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_an_order_end_that_is_about_to_and_begins_none() {
    let fake = Fake::new();
    fake.answers(A, [Reply::Certificate]);
    let (_allowed, allowed) = watch::channel(Allowed::Unusable);
    let (_role, role) = watch::channel(Role::Writer);
    let options = Options { growth: Growth::Steps, start: Start::Now, concurrent: 1, node: Node::Leave };
    let loops = Loops::new(fake.clone(), options, allowed, role, CancellationToken::new()).await;
    loops.ensure(&config(&[A, B])).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(fake.state().open, 1, "the other one waits for its turn");
    let began = Instant::now();
    loops.finish().await;
    assert_eq!(began.elapsed(), Duration::from_secs(2), "the order took 5 s");
    loops.stop().await;
    let state = fake.state();
    assert_eq!((state.calls.len(), state.aborted, state.records.len()), (1, 0, 1));
    assert!(state.given_up.is_empty(), "{:?}", state.given_up);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_goes_in_the_middle_of_its_order_leaves_no_claim() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Never]);
    scene.loops.ensure(&config(&[A, B])).await.unwrap();
    sleep(MINUTE).await;
    scene.loops.ensure(&json!({})).await.unwrap();
    let state = scene.fake.state();
    assert_eq!((state.open, &state.given_up[..]), (0, &[A.to_owned()][..]));
}

/// Whoever takes over knows what the replica before has used up, and of the order in which it was killed.
#[tokio::test(start_paused = true)]
async fn orders_of_other_replicas_count() {
    let scene = Scene::of(&json!({})).await;
    scene.role.send_replace(Role::Reader);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(MINUTE).await;
    let now = scene.fake.now();
    for second in 0..5 {
        let at = later(now, Duration::from_secs(second));
        scene.fake.state().ledger.add(Entry { name: A.to_owned(), at, kind: Kind::Renewed, serial: None });
    }
    sleep(MINUTE).await;
    scene.role.send_replace(Role::Writer);
    sleep(HOUR).await;
    assert!(matches!(scene.standing(A).await.phase, Phase::OverBudget(_)), "{:?}", scene.standing(A).await.phase);
    assert!(scene.fake.calls().is_empty());
    scene.fake.state().broken_off = Some(now);
    sleep(2 * DAY).await;
    assert_eq!(scene.fake.calls().len() as u64, scene.standing(A).await.attempts);
    let kinds = orders(&scene.loops);
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::BrokenOff).count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Issued).count(), 1, "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_noted_is_not_counted_again_by_the_next_process() {
    let fake = Fake::new();
    let (_allowed, allowed) = watch::channel(Allowed::Unusable);
    let options = Options { growth: Growth::Steps, start: Start::Now, concurrent: CONCURRENT, node: Node::Leave };
    for _ in 0..6 {
        let role = Office::fixed(Role::Writer).role();
        let loops = Loops::new(fake.clone(), options, allowed.clone(), role, CancellationToken::new()).await;
        loops.ensure(&config(&[A])).await.unwrap();
        crate::certs::manager::settled(&loops, MINUTE).await;
        assert_eq!(orders(&loops), [Kind::Issued]);
        loops.stop().await;
    }
    assert_eq!((fake.calls().len(), fake.state().told.len()), (6, 1), "asked six times, and told once");
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_up_what_was_claimed() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Never]);
    scene.loops.ensure(&config(&[A, B])).await.unwrap();
    sleep(MINUTE).await;
    scene.loops.stop().await;
    assert_eq!(scene.fake.state().given_up, [A]);
    let kinds: Vec<_> = scene.fake.state().ledger.entries().iter().map(|entry| entry.kind).collect();
    assert!(kinds.contains(&Kind::BrokenOff), "{kinds:?}");
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
    scene.fake.answers(A, [Reply::New, Reply::Certificate]);
    sleep(2 * DAY).await;
    assert_eq!(reasons()[3..], ["CertRenewed"]);
    let standing = scene.standing(A).await;
    let count = |result| standing.results.of(result);
    assert_eq!((count(Class::Transient.into()), count(Class::Authority.into())), (1, 4));
    assert_eq!((count(AttemptResult::OK), count(AttemptResult::UNCHANGED) > 0), (2, true));
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
