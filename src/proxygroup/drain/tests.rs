use std::collections::VecDeque;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

type Host = (Endpoint, VecDeque<Heard>);

/// Answers by host from a script, the last answer for ever; counts.
#[derive(Clone, Default)]
struct Scripted {
    hosts: Arc<Mutex<Vec<Host>>>,
    asked: Arc<Mutex<Vec<(Endpoint, Look)>>>,
}

impl Scripted {
    fn of(hosts: &[(&str, &[Heard])]) -> Self {
        let host = |(url, heard): &(&str, &[Heard])| (Endpoint::parse(url).unwrap(), heard.iter().cloned().collect());
        Self { hosts: Arc::new(Mutex::new(hosts.iter().map(host).collect())), asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Ask for Scripted {
    async fn ask(&self, endpoint: &Endpoint, look: Look) -> Heard {
        self.asked.lock().unwrap().push((endpoint.clone(), look));
        tokio::task::yield_now().await;
        let mut hosts = self.hosts.lock().unwrap();
        let (_, script) = hosts.iter_mut().find(|(known, _)| known == endpoint).expect("a host");
        if script.len() > 1 { script.pop_front().unwrap() } else { script[0].clone() }
    }
}

struct Group {
    dir: tempfile::TempDir,
    hook: Arc<Hook<Scripted>>,
    asking: Scripted,
}

const URL: &str = "http://web:9002/healthz";

fn pod(v4: bool, v6: bool) -> PodIps {
    PodIps { ipv4: v4.then(|| "10.42.0.7".parse().unwrap()), ipv6: v6.then(|| "fd42::7".parse().unwrap()) }
}

impl Group {
    /// A group whose Services have these health check endpoints.
    async fn new(pod: PodIps, endpoints: &[&str], pings: Option<&str>, asking: Scripted) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = |(nth, url)| {
            format!(
                r#""s{nth}":{{"healthCheckEndpoint":"{url}","tailnetTarget":{{"ip":"100.64.0.9","fqdn":""}},"ports":[]}}"#
            )
        };
        let services: Vec<_> = endpoints.iter().enumerate().map(service).collect();
        std::fs::write(dir.path().join("egress-services"), format!("{{{}}}", services.join(","))).unwrap();
        if let Some(pings) = pings {
            std::fs::write(dir.path().join("hep-pings"), pings).unwrap();
        }
        let hook = Hook::asking(dir.path().to_owned(), pod, asking.clone());
        hook.start().await;
        Self { dir, hook, asking }
    }

    async fn answer(&self) -> (Answer, Duration) {
        let start = Instant::now();
        let answer = Arc::clone(&self.hook).answer().await;
        (answer, start.elapsed())
    }
}

const OURS: Heard = Heard::Ours;
const OTHER: Heard = Heard::Other;

#[tokio::test(start_paused = true)]
async fn ha_15_the_round_without_us_and_the_settling_end_it() {
    let asking = Scripted::of(&[(URL, &[OTHER, OTHER, OURS, OTHER])]);
    let group = Group::new(pod(true, false), &[URL], Some("4"), asking).await;
    let mut draining = group.hook.draining();
    let (answer, took) = group.answer().await;
    assert_eq!(answer, Ok(""));
    assert_eq!(took, Duration::from_secs(11), "a tick between two rounds, and ten seconds");
    assert_eq!(group.asking.asked(), 3 + 4, "a round ends with the first answer of ours");
    assert!(draining.has_changed().unwrap() && !*draining.borrow_and_update(), "up, and down again");
}

#[tokio::test(start_paused = true)]
async fn ha_16_nobody_at_all_is_believed_after_three_rounds() {
    let group = Group::new(pod(true, false), &[URL], Some("4"), Scripted::of(&[(URL, &[Heard::Nobody])])).await;
    assert_eq!(group.answer().await, (Ok(""), Duration::from_secs(12)));
    assert_eq!(group.asking.asked(), 12);

    // A replica that is just going does not speak for the others.
    let mixed = [Heard::Nobody, OURS, Heard::Nobody, OTHER];
    let group = Group::new(pod(true, false), &[URL], Some("2"), Scripted::of(&[(URL, &mixed)])).await;
    assert_eq!(group.answer().await, (Ok(""), Duration::from_secs(12)));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_asked_again_and_not_for_ever() {
    let unknown = Heard::Unknown("no answer within 3s".to_owned());
    let script = [unknown.clone(), unknown.clone(), OTHER];
    let group = Group::new(pod(true, false), &[URL], Some("1"), Scripted::of(&[(URL, &script)])).await;
    assert_eq!(group.answer().await, (Ok(""), Duration::from_secs(12)));

    let group = Group::new(pod(true, false), &[URL], Some("1"), Scripted::of(&[(URL, &[unknown])])).await;
    assert_eq!(group.answer().await, (Ok(""), LONGEST), "and nothing to settle");
}

#[tokio::test(start_paused = true)]
async fn ha_17_what_there_is_nothing_to_wait_for_is_answered_at_once() {
    let now = |body| (Ok(body), Duration::ZERO);
    let group = Group::new(pod(true, false), &["", "not a url"], Some("4"), Scripted::default()).await;
    assert_eq!(group.answer().await, now(""), "no endpoint to ask");
    std::fs::write(group.dir.path().join("egress-services"), "{}").unwrap();
    assert_eq!(group.answer().await, now(""));
    std::fs::write(group.dir.path().join("egress-services"), "").unwrap();
    assert_eq!(group.answer().await, now(SAFE));
    std::fs::remove_file(group.dir.path().join("egress-services")).unwrap();
    assert_eq!(group.answer().await, now(SAFE));
    let unaware = Group::new(pod(false, false), &[URL], Some("4"), Scripted::default()).await;
    assert_eq!(unaware.answer().await, now(""), "a Pod that does not know its addresses cannot find itself");

    let early = Hook::asking(group.dir.path().to_owned(), pod(true, false), Scripted::default());
    std::fs::write(group.dir.path().join("egress-services"), "{").unwrap();
    assert_eq!(early.answer().await, Ok(SAFE), "before the start");
}

#[tokio::test(start_paused = true)]
async fn files_that_say_nothing_are_told() {
    let group = Group::new(pod(true, false), &[URL], Some("many"), Scripted::default()).await;
    let (answer, _) = group.answer().await;
    let text = answer.unwrap_err();
    assert!(
        text.starts_with("error determining the number of times health check endpoint should be pinged: \"many\""),
        "{text}"
    );
    std::fs::write(group.dir.path().join("egress-services"), "{\n]").unwrap();
    let text = group.answer().await.0.unwrap_err();
    assert!(text.starts_with("error retrieving egress services configs: ") && text.contains("line 2"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn ha_18_the_last_caller_to_go_ends_it() {
    let group = Group::new(pod(true, false), &[URL], Some("1"), Scripted::of(&[(URL, &[OURS])])).await;
    let mut draining = group.hook.draining();
    let mut callers = JoinSet::new();
    let first = callers.spawn(Arc::clone(&group.hook).answer());
    draining.wait_for(|draining| *draining).await.unwrap();
    callers.spawn(Arc::clone(&group.hook).answer());
    sleep(Duration::from_secs(5)).await;
    assert!(group.asking.asked() <= 6, "two callers, one drain: {}", group.asking.asked());
    first.abort();
    sleep(Duration::from_secs(5)).await;
    assert!(group.asking.asked() >= 9, "the second still waits");
    assert!(*draining.borrow());
    callers.shutdown().await;
    let asked = group.asking.asked();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(group.asking.asked(), asked);
    assert!(!*draining.borrow_and_update());
    assert!(group.hook.flight.lock().unwrap().as_ref().unwrap().upgrade().is_none(), "nothing left behind");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_has_ended_is_not_the_answer_to_the_next_call() {
    let group = Group::new(pod(true, false), &[URL], Some("1"), Scripted::of(&[(URL, &[OTHER])])).await;
    assert_eq!(group.answer().await.1, SETTLE);
    assert_eq!(group.answer().await.1, SETTLE);
    assert_eq!(group.asking.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn ha_19_the_family_of_the_pod_is_who_it_is() {
    let looked = async |v4, v6| {
        let group = Group::new(pod(v4, v6), &[URL], Some("1"), Scripted::of(&[(URL, &[OTHER])])).await;
        assert_eq!(group.answer().await.0, Ok(""));
        let asked = group.asking.asked.lock().unwrap();
        asked.iter().map(|(_, look)| format!("{} {:?}", look.ours, look.within)).collect::<Vec<_>>()
    };
    assert_eq!(looked(false, true).await, ["fd42::7 None"]);
    assert_eq!(looked(true, false).await, ["10.42.0.7 None"]);
    assert_eq!(looked(true, true).await, ["10.42.0.7 Some(V4)", "fd42::7 Some(V6)"], "each for itself");
}

#[tokio::test(start_paused = true)]
async fn services_are_drained_side_by_side() {
    let (slow, quick) = ("http://slow/", "http://quick/");
    let script: Vec<_> = std::iter::repeat_n(OURS, 20).chain([OTHER]).collect();
    let asking = Scripted::of(&[(slow, &script), (quick, &[OTHER])]);
    let group = Group::new(pod(true, false), &[slow, quick, slow], Some("3"), asking).await;
    let (answer, took) = group.answer().await;
    assert_eq!(answer, Ok(""));
    assert!(took <= Duration::from_secs(21), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_number_of_health_checks_is_remembered() {
    let count = async |group: &Group| {
        let before = group.asking.asked();
        group.answer().await.0.unwrap();
        group.asking.asked() - before
    };
    let asking = || Scripted::of(&[(URL, &[OTHER])]);
    let group = Group::new(pod(true, false), &[URL], None, asking()).await;
    assert_eq!(count(&group).await, 6, "nobody ever said");
    let group = Group::new(pod(true, false), &[URL], Some("9\n"), asking()).await;
    std::fs::write(group.dir.path().join("hep-pings"), "0").unwrap();
    assert_eq!(count(&group).await, 9, "known from the start");
    std::fs::write(group.dir.path().join("hep-pings"), "-1").unwrap();
    assert_eq!(count(&group).await, 9);
    std::fs::write(group.dir.path().join("hep-pings"), "4").unwrap();
    assert_eq!(count(&group).await, 4);
    std::fs::remove_file(group.dir.path().join("hep-pings")).unwrap();
    assert_eq!(count(&group).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_services_do_not_ask_all_at_once() {
    /// Takes a while, and knows how many do.
    #[derive(Clone, Default)]
    struct Slow {
        now: Arc<AtomicU64>,
        most: Arc<AtomicU64>,
    }

    impl Ask for Slow {
        async fn ask(&self, _: &Endpoint, _: Look) -> Heard {
            self.most.fetch_max(self.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            OTHER
        }
    }

    let group = Group::new(pod(true, false), &[URL; 1000], Some("3"), Scripted::default()).await;
    let slow = Slow::default();
    let hook = Hook::asking(group.dir.path().to_owned(), pod(true, false), slow.clone());
    hook.start().await;
    let start = Instant::now();
    assert_eq!(hook.answer().await, Ok(""));
    assert_eq!(slow.most.load(Ordering::Relaxed), AT_ONCE as u64);
    assert!(start.elapsed() < SETTLE + Duration::from_secs(1), "{:?}", start.elapsed());
}
