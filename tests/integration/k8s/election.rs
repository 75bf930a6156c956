//! Elections over real Leases of the pretend cluster, in seconds instead of minutes: scenarios of certs.md 13 under
//! their numbers.

use std::time::Duration;

use tailpod::certs::office::Office;
use tailpod::certs::world::Role;
use tailpod::certs::writer::{Choice, Member, NoDuty};
use tailpod::k8s::Cluster;
use tailpod::sandbox::apiserver::ApiServer;
use tailpod::sandbox::apiserver::access::{Access, Rule, User};
use tailpod::settings::KubeAccess;
use tailpod::shutdown::Tasks;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_secs(3);
/// 105 s at a duration of 60 s, and what a busy machine takes.
const TAKEOVER: Duration = Duration::from_millis(5250 + 5000);

struct Replica {
    office: Office,
    tasks: Tasks,
}

fn leases(verbs: &[&str]) -> Access {
    Access::default().and(Rule::new("coordination.k8s.io", &["leases"], verbs).within("ns"))
}

async fn cluster(api: &ApiServer, access: Access) -> (Cluster, tempfile::TempDir) {
    let token = api.issue_token(&User::service_account("ns", "proxy"), access);
    let account = tempfile::tempdir().expect("a directory");
    api.write_service_account(account.path(), "ns", &token).expect("a service account");
    let access = KubeAccess::InCluster { service_account: account.path().to_owned(), url: api.url() };
    (Cluster::connect(&access, "test").await.expect("a client"), account)
}

fn member(ordinal: u32) -> Member {
    Member::new(&format!("pg-{ordinal}"), Some("uid"), None, "x")
}

async fn replica(cluster: &Cluster, ordinal: u32) -> Replica {
    let mut tasks = Tasks::new(CancellationToken::new());
    let office = Office::take(Choice::Lease, Some(&member(ordinal)), cluster, LEASE, &mut tasks).await;
    Replica { office: office.expect("an office"), tasks }
}

/// Waits until one of `all` is the writer; which.
async fn writer(all: &[Replica]) -> usize {
    let found = async {
        loop {
            let writers: Vec<_> = (0..all.len()).filter(|n| all[*n].office.is_writer()).collect();
            assert!(writers.len() <= 1, "{writers:?}");
            match writers.first() {
                Some(writer) => return *writer,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(TAKEOVER, found).await.expect("a takeover in time")
}

fn spec(api: &ApiServer) -> serde_json::Value {
    api.objects("leases", "ns")[0]["spec"].clone()
}

#[tokio::test]
async fn s17_another_replica_takes_over_from_one_that_died_and_at_once_from_one_that_stops() {
    let api = ApiServer::start().await.expect("an API server");
    let (cluster, _account) = cluster(&api, leases(&["get", "create", "update"])).await;
    let mut all = Vec::new();
    for ordinal in 0..3 {
        all.push(replica(&cluster, ordinal).await);
    }
    assert_eq!(writer(&all).await, 0, "the lowest ordinal");
    assert_eq!(*all[0].office.role().borrow(), Role::Writer);
    let lease = &api.objects("leases", "ns")[0];
    assert_eq!(lease["metadata"]["name"], "tailpod-certs-pg");
    assert_eq!((&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]), (&"pg-0_uid".into(), &0.into()));
    let renewed = lease["spec"]["renewTime"].as_str().expect("a time").to_owned();
    assert_eq!(renewed.len(), "2026-01-01T00:00:00.000000Z".len(), "{renewed}");

    // Killed: its tasks are gone, the Lease still names it.
    let died = Instant::now();
    all[0].tasks = Tasks::new(CancellationToken::new());
    assert!(!all[0].office.is_writer() || died.elapsed() < LEASE);
    let second = writer(&all[1..]).await + 1;
    assert!(died.elapsed() >= Duration::from_secs(2), "not before the record is old: {:?}", died.elapsed());
    assert_eq!(
        (&spec(&api)["holderIdentity"], &spec(&api)["leaseTransitions"]),
        (&format!("pg-{second}_uid").into(), &1.into())
    );

    // Stopped: it gives the Lease back, which the other one sees at its next look.
    let unclean = all[second].tasks.stop(Duration::from_secs(5)).await;
    assert!(unclean.is_empty(), "{unclean:?}");
    assert_eq!(*all[second].office.role().borrow(), Role::Reader);
    let stopped = Instant::now();
    let third = 3 - second;
    assert_eq!(writer(&all).await, third);
    assert!(stopped.elapsed() < LEASE, "at its next look: {:?}", stopped.elapsed());
    assert_eq!(spec(&api)["holderIdentity"], format!("pg-{third}_uid"));
}

#[tokio::test]
async fn s18_a_holder_gives_up_when_the_api_server_hangs() {
    let api = ApiServer::start().await.expect("an API server");
    let (cluster, _account) = cluster(&api, leases(&["get", "create", "update"])).await;
    let all = [replica(&cluster, 0).await, replica(&cluster, 1).await];
    assert_eq!(writer(&all).await, 0);
    let tenure = all[0].office.seat().expect("a seat").tenure().expect("a tenure");
    let hangs = Instant::now();
    api.stall();
    timeout(TAKEOVER, tenure.ended()).await.expect("an end");
    // Two thirds of the duration after the last renewal, which was up to a sixth ago.
    assert!((1400..3000).contains(&hangs.elapsed().as_millis()), "{:?}", hangs.elapsed());
    assert!(!all[0].office.is_writer() && !all[1].office.is_writer());
    api.resume();
    writer(&all).await;
}

#[tokio::test]
async fn s19_without_the_rights_the_ordinal_decides() {
    let api = ApiServer::start().await.expect("an API server");
    let (cluster, _account) = cluster(&api, leases(&["get", "create"])).await;
    for (ordinal, role) in [(0, Role::Writer), (1, Role::Reader)] {
        let replica = replica(&cluster, ordinal).await;
        assert!(replica.office.seat().is_none() && replica.tasks.is_empty());
        assert_eq!(*replica.office.role().borrow(), role);
    }
    let mut tasks = Tasks::new(CancellationToken::new());
    let numberless = Member::new("pg-x2x", None, None, "x");
    let nobody = Office::take(Choice::Lease, Some(&numberless), &cluster, LEASE, &mut tasks).await;
    assert_eq!(nobody.err(), Some(NoDuty::NoOrdinal("pg-x2x".to_owned())));
    assert!(api.objects("leases", "ns").is_empty());
}
