//! What packet rules have to do with the course of a boot.

use super::*;

fn proxy(store: Store) -> Run {
    let policy =
        Policy { serve: true, firewall: true, forwards: true, ..policy(Persona::Containerboot, Mode::OneStep, store) };
    let mut run = Run::new(policy);
    run.on(Event::Listening);
    assert_eq!(run.running(), [Action::OpenFirewall]);
    run
}

fn own(last: u8) -> Vec<IpAddr> {
    vec![IpAddr::from([100, 64, 0, last])]
}

fn in_force(last: u8) -> Event {
    Event::Forwarding(Forwarding::InForce(own(last)))
}

fn waiting(why: &str) -> Event {
    Event::Forwarding(Forwarding::Waiting(why.to_owned()))
}

fn refused(why: &str) -> Event {
    Event::Forwarding(Forwarding::Refused(why.to_owned()))
}

/// The node under another address.
fn moved(run: &mut Run, last: u8) -> Vec<Action> {
    let device = Device { addresses: own(last), ..device("myID") };
    run.on(Event::Bus(BusUpdate { device: Some(device), netmap: true, ..BusUpdate::default() }))
}

/// boot.md 5.4 and scenario 32: the id, then rules, then the endpoints, then the milestone.
#[test]
fn s32_nobody_is_sent_to_a_node_whose_rules_are_not_in_force() {
    let mut run = proxy(Store::Writable);
    assert_eq!(run.on(Event::FirewallOpened(Ok(()))), [Action::WatchConfig, Action::PublishId("myID".to_owned())]);
    assert!(run.running().is_empty(), "nothing is routed before the id is known");
    assert_eq!(run.on(Event::IdWritten), [Action::Forward(own(1))]);
    assert!(run.running().is_empty(), "and nothing repeats");
    assert_eq!(run.on(in_force(1)), [Action::Publish(device("myID")), Action::Serve]);
    assert!(said(&run.on(Event::Published), READY));
    // Another address: rules first, again.
    assert_eq!(moved(&mut run, 2), [Action::Forward(own(2))]);
    let published = run.on(in_force(2));
    assert!(matches!(&published[..], [Action::Publish(device)] if device.addresses == own(2)), "{published:?}");
}

#[test]
fn without_a_secret_there_is_nothing_to_wait_for_but_rules() {
    let mut run = proxy(Store::None);
    assert_eq!(run.on(Event::FirewallOpened(Ok(()))), [Action::WatchConfig, Action::Forward(own(1))]);
    assert!(said(&run.on(in_force(1)), READY));
}

/// An API server that is away holds up the endpoints, not the rules.
#[test]
fn an_id_that_is_late_is_no_reason_not_to_forward() {
    let mut run = proxy(Store::Writable);
    run.on(Event::FirewallOpened(Ok(())));
    assert_eq!(run.on(Event::IdDelayed), [Action::Forward(own(1))]);
    let forwarded = run.on(in_force(1));
    assert!(!said(&forwarded, READY), "{forwarded:?}");
    assert!(said(&run.on(Event::Published), READY));
}

/// W1: upstream leaves its loop, stops tailscaled and ends with 0, or hangs.
#[test]
fn w01_a_target_that_is_away_is_waited_for() {
    let mut run = proxy(Store::None);
    run.on(Event::FirewallOpened(Ok(())));
    assert_eq!(run.on(waiting("could not find it")), [Action::Serve], "the rest of the pass");
    assert_eq!(run.boot.readiness().rules.as_deref(), Some("could not find it"));
    assert!(run.boot.readiness().startup.is_some());
    run.now += Duration::from_secs(3600);
    assert!(run.on(Event::Tick).is_empty() && run.running().is_empty());
    assert!(said(&run.on(in_force(1)), READY));
    assert_eq!(run.boot.readiness().rules, None);
    // Away again: not ready, but alive, and nothing new is told to anybody.
    assert!(run.on(waiting("could not find it")).is_empty());
    assert!(run.boot.readiness().rules.is_some() && run.boot.readiness().startup.is_none());
    assert!(run.running().is_empty());
}

/// netfilter.md 8, rule 9.
#[test]
fn first_rules_that_stay_refused_end_it_with_the_boot_deadline() {
    let mut run = proxy(Store::None);
    run.on(Event::FirewallOpened(Ok(())));
    let started = run.now;
    assert!(run.on(refused("installing ingress proxy rules: no")).is_empty(), "they are tried again");
    assert_eq!(failure(&run.wait()), "installing ingress proxy rules: no");
    assert_eq!(run.now, started + Duration::from_secs(60));

    let mut late = proxy(Store::None);
    late.now += Duration::from_secs(300);
    late.on(Event::FirewallOpened(Ok(())));
    late.on(refused("no"));
    assert_eq!(late.boot.deadline(), Some(late.now + Duration::from_secs(2)), "a human took the time, not the kernel");
    assert!(said(&late.on(in_force(1)), READY));
    assert!(late.on(refused("no")).is_empty());
    assert_eq!(late.boot.deadline(), None, "what is in force stays, and so does the node");
    assert_eq!(late.boot.readiness().rules.as_deref(), Some("no"));
}

#[test]
fn what_cannot_be_is_an_end() {
    let mut run = proxy(Store::None);
    run.on(Event::FirewallOpened(Ok(())));
    assert_eq!(failure(&run.on(Event::Forwarding(Forwarding::Impossible("no IPv6".to_owned())))), "no IPv6");
    let mut none = proxy(Store::Writable);
    let end = none.on(Event::FirewallOpened(Err("CAP_NET_ADMIN is missing".to_owned())));
    assert_eq!(failure(&end), "error creating new netfilter runner: CAP_NET_ADMIN is missing");
}

/// boot.md E.4: a restart of tailscaled in place leaves the rules alone.
#[test]
fn a_restarted_daemon_finds_its_rules() {
    let policy = Policy { firewall: true, forwards: true, ..policy(Persona::Tailpod, Mode::OneStep, Store::None) };
    let mut run = Run::new(policy);
    run.on(Event::Listening);
    run.running();
    run.on(Event::FirewallOpened(Ok(())));
    run.on(in_force(1));
    run.on(Event::DaemonExited(Death("signal: killed".to_owned())));
    assert!(run.wait().contains(&Action::SpawnDaemon));
    run.on(Event::Listening);
    assert!(run.running().is_empty(), "same addresses, same rules");
    assert!(run.boot.readiness().state.is_none());
}
