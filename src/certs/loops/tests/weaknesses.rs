//! Weaknesses of upstream's loops (certs.md 12), under their own numbers.

use super::*;

#[tokio::test(start_paused = true)]
async fn w05_what_is_configured_wrong_costs_nothing_and_is_noticed_as_soon_as_it_is_mended() {
    for wrong in [
        "invalid domain \"a\"; must be one of [\"x\"]",
        "your Tailscale account does not support getting TLS certs",
        "wildcard certificates are not enabled for this node",
    ] {
        let scene = Scene::of(&json!({})).await;
        scene.fake.answers(A, [Reply::Fails(500, wrong)]);
        scene.loops.ensure(&config(&[A])).await.unwrap();
        sleep(3 * DAY).await;
        let standing = scene.standing(A).await;
        assert_eq!((&standing.phase, standing.record.failures), (&Phase::NotAllowed, 0), "{wrong}");
        assert!(scene.loops.ledger().entries().is_empty(), "{wrong}: the authority was not asked");
        scene.fake.answers(A, [Reply::Certificate]);
        sleep(2 * MINUTE).await;
        assert!(matches!(scene.standing(A).await.phase, Phase::Waiting(_)), "{wrong}: within two minutes");
    }
    // One that only reads is left alone until its role changes, and then asked at once.
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Fails(500, "cert is in read-only mode"), Reply::Certificate]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(3 * DAY).await;
    assert_eq!((scene.fake.calls().len(), scene.standing(A).await.record.failures), (1, 0));
    scene.role.send_replace(Role::Reader);
    sleep(MINUTE).await;
    scene.role.send_replace(Role::Writer);
    sleep(MINUTE).await;
    assert!(matches!(scene.standing(A).await.phase, Phase::Waiting(_)));
}

#[tokio::test(start_paused = true)]
async fn w13_many_names_do_not_ask_all_at_once() {
    let names: Vec<_> = (0..40).map(|n| format!("n{n}.tail1.ts.net")).collect();
    let scene = Scene::of(&config(&names.iter().map(String::as_str).collect::<Vec<_>>())).await;
    sleep(2 * MINUTE).await;
    assert_eq!((scene.fake.calls().len(), scene.fake.state().most_open), (40, CONCURRENT));
    // The first wait is for chance to say, within half a minute.
    let fake = Fake::new();
    fake.state().chances = (0..6).map(|n| f64::from(n) / 6.0).collect();
    let scene = Scene::new(fake, Growth::Steps).await;
    scene.loops.ensure(&config(&names[..6].iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
    sleep(MINUTE).await;
    let seconds: Vec<_> = scene.fake.calls().iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [0, 5, 10, 15, 20, 25]);
}

#[tokio::test(start_paused = true)]
async fn w13_a_daemon_with_one_lock_gets_one_call_at_a_time_and_the_queue_costs_nobody_an_attempt() {
    assert_eq!([Some("1.98.2"), Some("1.102.0"), None].map(concurrency), [1, CONCURRENT, CONCURRENT]);
    let (_allowed, allowed) = watch::channel(Allowed::Unusable);
    let (_role, role) = watch::channel(Role::Writer);
    let options = Options { growth: Growth::Steps, start: Start::Spread, concurrent: 1, node: Node::Leave };
    let fake = Fake::new();
    let loops = Loops::new(fake.clone(), options, allowed, role, CancellationToken::new()).await;
    let names: Vec<_> = (0..400).map(|n| format!("n{n}.tail1.ts.net")).collect();
    loops.ensure(&config(&names.iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
    sleep(35 * MINUTE).await;
    // The last one has waited for longer than an attempt may take.
    assert!(fake.calls()[399] > 33 * MINUTE, "{:?}", fake.calls()[399]);
    assert_eq!((fake.calls().len(), fake.state().most_open), (400, 1));
    assert!(loops.standings().await.iter().all(|(_, standing)| standing.record.failures == 0));
}
