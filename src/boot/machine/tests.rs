//! The course of a boot as tables of events and actions.

mod forward;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::localapi::types::Warning;
use crate::settings::RestartDaemon;

fn policy(persona: Persona, mode: Mode, store: Store) -> Policy {
    Policy {
        persona,
        mode,
        store,
        login_sources: match persona {
            Persona::Tailpod => vec![LoginSource::Environment, LoginSource::Secret],
            Persona::Containerboot => Vec::new(),
        },
        force_login: false,
        boot_timeout: Duration::from_secs(60),
        login_timeout: Duration::from_secs(600),
        restart: match persona {
            Persona::Tailpod => RestartDaemon::WithBackoff,
            Persona::Containerboot => RestartDaemon::Never,
        },
        delete_authkey: false,
        clear_serve_config: false,
        serve: false,
        group: false,
        firewall: false,
        forwards: false,
        control_url: None,
        tags: Vec::new(),
        tune_gro: false,
        link_socket: false,
    }
}

/// A boot on a clock of its own.
struct Run {
    boot: Boot,
    now: Instant,
}

impl Run {
    fn new(policy: Policy) -> Self {
        let now = Instant::now();
        let deadline = now + policy.boot_timeout;
        Self { boot: Boot::new(policy, deadline), now }
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.boot.step(event, self.now)
    }

    fn state(&mut self, state: State) -> Vec<Action> {
        self.on(Event::Bus(BusUpdate { state: Some(state), ..BusUpdate::default() }))
    }

    fn running(&mut self) -> Vec<Action> {
        self.on(Event::Bus(BusUpdate {
            state: Some(State::Running),
            device: Some(device("myID")),
            netmap: true,
            ..BusUpdate::default()
        }))
    }

    fn login_failing(&mut self, state: Option<State>, error: &str) -> Vec<Action> {
        self.on(Event::Bus(BusUpdate { state, login_health: Some(failing(error)), ..BusUpdate::default() }))
    }

    /// Lets time pass up to the next deadline and ticks.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.boot.deadline().expect("a deadline is set");
        self.on(Event::Tick)
    }
}

fn failing(error: &str) -> LoginHealth {
    let args = [("error".to_owned(), error.to_owned())].into();
    LoginHealth::Failing(Warning { text: "You are logged out.".to_owned(), args })
}

fn device(id: &str) -> Device {
    let addresses = vec![IpAddr::from([100, 64, 0, 1])];
    Device { id: id.to_owned(), fqdn: "test-node.test.ts.net.".to_owned(), addresses, key_expired: false }
}

fn said(actions: &[Action], text: &str) -> bool {
    actions.iter().any(|action| matches!(action, Action::Log(_, line) if line.contains(text)))
}

fn outcome(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Stop(outcome) => Some(outcome),
        _ => None,
    })
}

fn failure(actions: &[Action]) -> &str {
    match outcome(actions) {
        Some(Outcome::Failed(text)) => text,
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn exit_code(actions: &[Action]) -> u8 {
    match outcome(actions) {
        Some(Outcome::LoginFailed(failed)) => failed.class.exit_code(),
        other => panic!("expected a login failure, got {other:?}"),
    }
}

const READY: &str = "Startup complete, waiting for shutdown signal";

#[test]
fn always_auth_runs_up_once_before_looking_at_any_state() {
    let mut run = Run::new(policy(Persona::Containerboot, Mode::AlwaysAuth, Store::None));
    assert!(run.on(Event::Listening).contains(&Action::RunUp));
    assert!(run.state(State::NeedsLogin).is_empty(), "up is under way");
    assert!(run.running().is_empty(), "the state counts once up has ended");
    let done = run.on(Event::UpFinished(Ok(())));
    assert_eq!(done, [Action::WatchBus], "what was seen before `up` says nothing of after");
    assert!(said(&run.running(), READY));
    assert!(run.running().is_empty(), "nothing repeats");
}

#[test]
fn auth_once_runs_up_on_needs_login_only_and_set_always() {
    let mut fresh = Run::new(policy(Persona::Containerboot, Mode::AuthOnce, Store::None));
    assert!(!fresh.on(Event::Listening).contains(&Action::RunUp));
    assert!(fresh.state(State::NeedsLogin).contains(&Action::RunUp));
    fresh.on(Event::UpFinished(Ok(())));
    assert!(!fresh.state(State::NeedsLogin).contains(&Action::RunUp), "at most once");
    assert!(fresh.running().contains(&Action::RunSet));
    assert!(said(&fresh.on(Event::SetFinished(Ok(()))), READY));

    let mut known = Run::new(policy(Persona::Containerboot, Mode::AuthOnce, Store::Writable));
    known.on(Event::Listening);
    assert!(known.running().contains(&Action::RunSet));
    assert!(known.on(Event::SetFinished(Ok(()))).contains(&Action::DeleteAuthKey));
    let published = known.on(Event::AuthKeyDeleted(Ok(())));
    assert!(published.contains(&Action::Publish(device("myID"))) && !said(&published, READY));
    assert!(said(&known.on(Event::Published), READY));
}

#[test]
fn device_changes_are_published_and_repeats_are_not() {
    let mut run = Run::new(policy(Persona::Containerboot, Mode::OneStep, Store::Writable));
    run.on(Event::Listening);
    assert!(run.running().contains(&Action::WatchConfig));
    run.on(Event::Published);
    assert!(run.running().is_empty());
    let changed = BusUpdate { device: Some(device("newID")), netmap: true, ..BusUpdate::default() };
    assert_eq!(run.on(Event::Bus(changed)), [Action::Publish(device("newID"))]);
}

#[test]
fn an_api_server_blip_does_not_hold_up_the_startup() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::OneStep, Store::Writable));
    run.on(Event::Listening);
    run.running();
    assert!(said(&run.on(Event::PublishDelayed), READY));
    assert_eq!(failure(&run.on(Event::PublishDenied("storing device ID: no".to_owned()))), "storing device ID: no");
}

#[test]
fn an_answer_that_comes_while_running_is_lost_still_completes_the_startup() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::OneStep, Store::Writable));
    run.on(Event::Listening);
    assert!(run.running().contains(&Action::Publish(device("myID"))));
    run.state(State::NeedsLogin);
    assert!(!said(&run.on(Event::Published), READY));
    let again = run.running();
    assert!(said(&again, READY) && !again.contains(&Action::Publish(device("myID"))), "{again:?}");
}

#[test]
fn containerboot_leaves_when_running_is_lost() {
    let mut run = Run::new(policy(Persona::Containerboot, Mode::AlwaysAuth, Store::None));
    run.on(Event::Listening);
    run.on(Event::UpFinished(Ok(())));
    run.running();
    let text = "tailscaled left running state (now in state \"Stopped\"), exiting";
    assert_eq!(failure(&run.state(State::Stopped)), text);
}

#[test]
fn tailpod_tolerates_an_excursion() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::AlwaysAuth, Store::None));
    run.on(Event::Listening);
    run.running();
    run.on(Event::PrefsApplied(Ok(())));
    assert!(outcome(&run.state(State::Starting)).is_none());
    assert!(run.boot.readiness().state.is_some(), "not ready meanwhile");
    assert!(said(&run.running(), "Running again"));
    run.state(State::Stopped);
    assert!(failure(&run.wait()).contains("now in state \"Stopped\""));
}

#[test]
fn a_good_identity_needs_no_key() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::AlwaysAuth, Store::Writable));
    run.on(Event::Listening);
    assert_eq!(run.state(State::Starting).last(), Some(&Action::ApplyPrefs));
    let up = run.running();
    assert!(!up.iter().any(|action| matches!(action, Action::Login(_))), "{up:?}");
    assert!(run.on(Event::PrefsApplied(Ok(()))).contains(&Action::Publish(device("myID"))));
}

#[test]
fn keys_are_tried_in_order_and_the_last_refusal_decides() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::AlwaysAuth, Store::ReadOnly));
    run.on(Event::Listening);
    assert!(run.state(State::NeedsLogin).contains(&Action::Login(LoginSource::Environment)));
    run.on(Event::LoginSubmitted(Ok(())));
    run.now += Duration::from_secs(1);
    let next = run.login_failing(None, "invalid key: API key kDEAD not valid");
    assert!(next.contains(&Action::Login(LoginSource::Secret)), "{next:?}");
    run.on(Event::LoginSubmitted(Ok(())));
    // The warning about the first key still stands; it says nothing about the second.
    assert!(outcome(&run.login_failing(None, "invalid key: API key kDEAD not valid")).is_none());
    let end = run.wait();
    assert_eq!(exit_code(&end), 10, "{end:?}");
}

#[test]
fn a_source_that_holds_nothing_is_no_attempt() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::AlwaysAuth, Store::None));
    run.on(Event::Listening);
    run.state(State::NeedsLogin);
    let missing = || Event::LoginSubmitted(Err(LoginError::Unavailable("no such file".to_owned())));
    assert!(run.on(missing()).contains(&Action::Login(LoginSource::Secret)));
    assert!(run.on(missing()).contains(&Action::Login(LoginSource::Human)));
    run.on(Event::LoginSubmitted(Ok(())));
    let deadline = run.boot.deadline().expect("a deadline");
    assert_eq!(deadline, run.now + Duration::from_secs(600), "a human may take longer than the boot");
    let url = BusUpdate { browse_url: Some("https://login/a".to_owned()), ..BusUpdate::default() };
    assert!(said(&run.on(Event::Bus(url)), "https://login/a"));
    assert_eq!(exit_code(&run.wait()), 15);
}

#[test]
fn a_refused_key_of_the_secret_is_asked_for_again() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::AlwaysAuth, Store::Writable));
    run.boot.policy.login_sources = vec![LoginSource::Secret];
    run.on(Event::Listening);
    run.state(State::NeedsLogin);
    run.on(Event::LoginSubmitted(Ok(())));
    run.now += Duration::from_secs(1);
    assert!(run.login_failing(None, "key already been used").contains(&Action::RequestReissue));
}

#[test]
fn reissue_stops_the_daemon_before_the_identity_goes() {
    let mut run = Run::new(policy(Persona::Containerboot, Mode::OneStep, Store::Writable));
    run.on(Event::Listening);
    assert!(outcome(&run.state(State::NeedsLogin)).is_none());
    let asked = run.wait();
    assert!(asked.contains(&Action::RequestReissue) && said(&asked, "Auth key missing or invalid (NeedsLogin state)"));
    assert_eq!(run.boot.deadline(), None, "the boot deadline is not the reissue's");
    assert!(!run.boot.may_write_state(), "a stop has no half-written state to wait for");
    assert_eq!(run.on(Event::NewKey(Ok(()))), [Action::StopDaemon]);
    assert_eq!(run.on(Event::DaemonExited(Death("exit status 0".to_owned()))), [Action::ClearIdentity]);
    let end = run.on(Event::IdentityCleared(Ok(())));
    assert_eq!(outcome(&end), Some(&Outcome::Reissued));
}

/// A reissue whose identity keys cannot be removed, up to its end.
fn reissue_that_cannot_clear(persona: Persona) -> Vec<Action> {
    let mut run = Run::new(policy(persona, Mode::OneStep, Store::Writable));
    run.on(Event::Listening);
    run.state(State::NeedsLogin);
    while !matches!(run.boot.phase, Phase::Reissuing(_)) {
        run.wait();
    }
    run.on(Event::NewKey(Ok(())));
    run.on(Event::DaemonExited(Death("exit status 0".to_owned())));
    run.on(Event::IdentityCleared(Err("`_machinekey` is still there".to_owned())))
}

#[test]
fn tailpod_says_when_the_old_identity_stays() {
    let end = reissue_that_cannot_clear(Persona::Tailpod);
    assert_eq!(failure(&end), "the old identity could not be removed: `_machinekey` is still there");
    assert!(!said(&end, "Successfully"), "{end:?}");
}

#[test]
fn containerboot_warns_when_the_old_identity_stays() {
    let end = reissue_that_cannot_clear(Persona::Containerboot);
    assert!(said(&end, "Warning: failed to clear reissue request: `_machinekey` is still there"), "{end:?}");
    assert!(said(&end, "Successfully received new auth key") && outcome(&end) == Some(&Outcome::Reissued), "{end:?}");
}

#[test]
fn a_short_needs_login_asks_for_nothing() {
    let mut run = Run::new(policy(Persona::Containerboot, Mode::OneStep, Store::Writable));
    run.on(Event::Listening);
    run.state(State::NeedsLogin);
    run.now += Duration::from_millis(500);
    run.state(State::Starting);
    assert!(!run.wait().contains(&Action::RequestReissue));
}

#[test]
fn tailpod_asks_for_a_key_only_when_the_failure_persists() {
    let asks_after = |persona, wait| {
        let mut run = Run::new(policy(persona, Mode::OneStep, Store::Writable));
        run.on(Event::Listening);
        assert!(!run.login_failing(None, "invalid key: API key k not valid").contains(&Action::RequestReissue));
        run.now += wait;
        run.on(Event::Tick).contains(&Action::RequestReissue)
    };
    let (short, long) = (Duration::from_secs(3), Duration::from_secs(16));
    assert!(asks_after(Persona::Containerboot, short));
    assert!(!asks_after(Persona::Tailpod, short));
    assert!(asks_after(Persona::Tailpod, long));
}

#[test]
fn trouble_on_the_way_to_control_is_not_a_dead_key() {
    for persona in [Persona::Containerboot, Persona::Tailpod] {
        let mut run = Run::new(policy(persona, Mode::OneStep, Store::Writable));
        run.on(Event::Listening);
        run.login_failing(None, "lookup controlplane.tailscale.com: no such host");
        run.now += Duration::from_secs(40);
        assert!(run.on(Event::Tick).is_empty());
        assert_eq!(
            run.boot.deadline(),
            Some(run.now + Duration::from_secs(20)),
            "nothing is looked at before the boot deadline"
        );
        let fine = BusUpdate { login_health: Some(LoginHealth::Fine), ..BusUpdate::default() };
        assert!(run.on(Event::Bus(fine)).is_empty());
        assert!(said(&run.running(), READY) || run.boot.node.published.is_some());
    }
}

#[test]
fn tailpod_restarts_a_dead_daemon_and_gives_up_in_the_end() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::OneStep, Store::None));
    run.on(Event::Listening);
    assert!(said(&run.running(), READY));
    let death = || Event::DaemonExited(Death("signal: killed".to_owned()));
    for _ in 0..4 {
        assert!(said(&run.on(death()), "signal: killed"));
        assert!(run.boot.readiness().state.is_some());
        assert!(run.wait().contains(&Action::SpawnDaemon));
        run.on(Event::Listening);
        let again = run.running();
        assert!(!said(&again, READY) && !again.contains(&Action::WatchConfig), "both happen once: {again:?}");
    }
    assert!(failure(&run.on(death())).contains("5 times"));
}

#[test]
fn a_daemon_that_is_replaced_is_followed_by_the_next_at_once_and_its_death_does_not_count() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::OneStep, Store::None));
    run.on(Event::Listening);
    run.running();
    let exited = || Event::DaemonExited(Death("exit status 0".to_owned()));
    for _ in 0..8 {
        assert_eq!(run.on(Event::Replace), [Action::StopDaemon]);
        assert_eq!(run.on(Event::Replace), [], "it is on its way");
        assert_eq!(run.on(exited()), [Action::SpawnDaemon]);
        run.on(Event::Listening);
        run.running();
        assert!(run.boot.readiness().state.is_none());
    }
    // One that dies before it listens dies as any other.
    run.on(Event::Replace);
    run.on(exited());
    assert!(said(&run.on(exited()), "restarting it in"));
    assert_eq!(run.on(Event::Replace), [], "the next one is on its way");
    assert!(run.wait().contains(&Action::SpawnDaemon));
}

/// boot.md E.4: a restart has the boot deadline again, and ends with it wherever it hangs.
#[test]
fn a_restart_that_does_not_get_far_ends_with_its_deadline() {
    for listens in [false, true] {
        let mut run = Run::new(policy(Persona::Tailpod, Mode::AlwaysAuth, Store::None));
        run.on(Event::Listening);
        run.running();
        run.on(Event::PrefsApplied(Ok(())));
        run.now += Duration::from_secs(3600);
        run.on(Event::DaemonExited(Death("signal: killed".to_owned())));
        assert!(run.wait().contains(&Action::SpawnDaemon));
        let restarted = run.now;
        if listens {
            run.on(Event::Listening);
            run.state(State::Starting);
        }
        let end = run.wait();
        assert_eq!(run.now, restarted + Duration::from_secs(60), "the deadline is the restart's own");
        let text =
            if listens { "the node was not Running within 60s" } else { "timed out waiting for tailscaled socket" };
        assert!(failure(&end).contains(text), "{end:?}");
    }
}

#[test]
fn a_daemon_that_never_listened_is_not_restarted() {
    for persona in [Persona::Containerboot, Persona::Tailpod] {
        let mut run = Run::new(policy(persona, Mode::AlwaysAuth, Store::None));
        let end = run.on(Event::DaemonExited(Death("exit status 1".to_owned())));
        assert!(failure(&end).contains("exit status 1"));
    }
}

#[test]
fn the_boot_deadline_ends_it_with_upstreams_words() {
    let mut run = Run::new(policy(Persona::Containerboot, Mode::AlwaysAuth, Store::None));
    run.on(Event::Listening);
    let text = "failed to auth tailscale: failed to auth tailscale: tailscale up failed: context deadline exceeded";
    assert_eq!(failure(&run.wait()), text);
}

#[test]
fn a_bus_that_stays_lost_is_fatal_after_a_minute() {
    let mut run = Run::new(policy(Persona::Tailpod, Mode::OneStep, Store::None));
    run.on(Event::Listening);
    run.running();
    run.on(Event::BusLost("connection refused".to_owned()));
    assert!(run.boot.readiness().bus.is_some());
    run.on(Event::BusOpened);
    assert!(run.boot.readiness().bus.is_none());
    run.on(Event::BusLost("connection refused".to_owned()));
    assert_eq!(failure(&run.wait()), "reading tailscaled IPN bus: connection refused");
}

fn any_state() -> impl Strategy<Value = State> {
    (0..9_i64).prop_map(State::from_number)
}

fn any_event() -> impl Strategy<Value = Event> {
    let error = prop_oneof![Just("invalid key"), Just("dial tcp: timeout"), Just("")];
    prop_oneof![
        Just(Event::Listening),
        Just(Event::NotStarted("x".into())),
        Just(Event::DaemonExited(Death("exit status 1".into()))),
        any_state().prop_map(|s| Event::Bus(BusUpdate { state: Some(s), ..BusUpdate::default() })),
        any_state().prop_map(|s| Event::Bus(BusUpdate {
            state: Some(s),
            device: Some(device("d")),
            netmap: true,
            ..BusUpdate::default()
        })),
        error.prop_map(|e| Event::Bus(BusUpdate { login_health: Some(failing(e)), ..BusUpdate::default() })),
        Just(Event::BusLost("eof".into())),
        Just(Event::BusOpened),
        Just(Event::UpFinished(Ok(()))),
        Just(Event::SetFinished(Ok(()))),
        Just(Event::LoginSubmitted(Ok(()))),
        Just(Event::LoginSubmitted(Err(LoginError::Refused("expired".into())))),
        Just(Event::LoginSubmitted(Err(LoginError::Unavailable("none".into())))),
        Just(Event::PrefsApplied(Ok(()))),
        Just(Event::AuthKeyDeleted(Ok(()))),
        Just(Event::Published),
        Just(Event::PublishDelayed),
        Just(Event::IdWritten),
        Just(Event::FirewallOpened(Ok(()))),
        Just(Event::Forwarding(Forwarding::InForce(vec![IpAddr::from([100, 64, 0, 1])]))),
        Just(Event::Forwarding(Forwarding::Waiting("x".into()))),
        Just(Event::Forwarding(Forwarding::Refused("x".into()))),
        Just(Event::NewKey(Ok(()))),
        Just(Event::IdentityCleared(Ok(()))),
        Just(Event::Tick),
    ]
}

proptest! {
    /// Whatever happens: no panic, exactly one outcome, nothing after it, and a signal always ends it.
    #[test]
    fn any_sequence_ends_in_exactly_one_outcome(
        tailpod in any::<bool>(),
        forwards in any::<bool>(),
        mode in prop_oneof![Just(Mode::OneStep), Just(Mode::AuthOnce), Just(Mode::AlwaysAuth)],
        store in prop_oneof![Just(Store::None), Just(Store::ReadOnly), Just(Store::Writable)],
        events in proptest::collection::vec((any_event(), 0..20_000_u64), 0..60),
    ) {
        let persona = if tailpod { Persona::Tailpod } else { Persona::Containerboot };
        let policy = Policy { firewall: forwards, forwards, ..policy(persona, mode, store) };
        let mut run = Run::new(policy);
        let mut stops = 0;
        let mut ups = 0;
        for (event, millis) in events {
            run.now += Duration::from_millis(millis);
            let actions = run.on(event);
            prop_assert!(stops == 0 || actions.is_empty());
            stops += actions.iter().filter(|a| matches!(a, Action::Stop(_))).count();
            ups += actions.iter().filter(|a| matches!(a, Action::RunUp)).count();
        }
        let last = run.on(Event::Signal);
        stops += last.iter().filter(|a| matches!(a, Action::Stop(_))).count();
        prop_assert_eq!(stops, 1);
        prop_assert!(ups <= 1);
        prop_assert!(persona == Persona::Containerboot || ups == 0);
    }
}
