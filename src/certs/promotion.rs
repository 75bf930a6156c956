//! When the holder of the Lease has tailscaled restarted as the one that orders, and when as one that reads. Pure.
//!
//! The share mode of a daemon is fixed at its start, and one that may order does so by itself. So all of them read, and
//! holding the Lease only makes a replica responsible: where there is something to order, it is withdrawn from its
//! Services, restarted to order (`rw`), and afterwards to read again (`ro`). A tenure that ends makes that the first
//! thing of all. Whoever performs the actions reports how they went; [`wake_at`](Promotion::wake_at) says when to look
//! again without news.

use std::time::{Duration, Instant};

/// How long peers are given to fail over to other replicas.
const WITHDRAWAL: Duration = Duration::from_secs(20);
/// A restart, until the node is up again.
const RESTART: Duration = Duration::from_secs(120);
/// Longest stay as the one that orders, for names that follow the first one.
const STAY: Duration = Duration::from_secs(600);
/// Before a restart that failed is tried again, where it must succeed.
const AGAIN: Duration = Duration::from_secs(5);
/// So many failures...
const FAILURES: u32 = 3;
/// ...and the replica lets others try for this long.
const PAUSE: Duration = Duration::from_secs(30 * 60);

/// `TS_CERT_SHARE_MODE` of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It serves with what others have ordered.
    Reads,
    /// It orders.
    Orders,
}

/// How long the holder's daemon orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// While there is something to order, and a while longer.
    Lazy,
    /// As long as it is the holder: `--sticky-writer`.
    Sticky,
}

/// Whether other replicas serve meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They do: peers are sent to them first.
    Serve,
    /// There are none: nothing is gained by a withdrawal, or by reading again.
    None,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The Lease is ours.
    Gained,
    /// It is not any more.
    Lost,
    /// Whether there is something to order now: a certificate that is missing, over or due, allowed and storable, whose
    /// next attempt has come. Said every minute.
    Work(bool),
    /// Our Services are withdrawn, and peers have had their time.
    Withdrawn,
    /// The daemon is up again in this mode.
    Running(Mode),
    /// The restart failed.
    NotRunning,
    /// An order was answered, and what is stored has not changed.
    NotStored,
    /// [`wake_at`](Promotion::wake_at) has come.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Withdraw our Services.
    Withdraw,
    /// Restart the daemon in this mode.
    Restart(Mode),
    /// Let the loops ask.
    Open,
    /// Have them stop at once, with what they have open.
    Close,
    /// Advertise our Services again.
    Advertise,
    /// Give the Lease back, and do not compete for this long.
    Resign(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The daemon reads.
    Reading,
    /// Peers fail over.
    Withdrawing { until: Instant },
    /// It is being restarted to order.
    Promoting { until: Instant },
    /// It orders; the loops ask.
    Ordering { since: Instant },
    /// It is being restarted to read; at the latest then, once more.
    Demoting { again: Instant },
}

/// One replica's way up and down.
#[derive(Clone, Debug)]
pub struct Promotion {
    stay: Stay,
    others: Others,
    is_holder: bool,
    has_work: bool,
    withdrawn: bool,
    failures: u32,
    state: State,
}

impl Promotion {
    /// A replica whose daemon reads.
    pub fn new(stay: Stay, others: Others) -> Self {
        let (is_holder, has_work, withdrawn) = (false, false, false);
        Self { stay, others, is_holder, has_work, withdrawn, failures: 0, state: State::Reading }
    }

    /// How many other replicas there are may change; it counts from the next step on.
    pub fn set_others(&mut self, others: Others) {
        self.others = others;
    }

    /// In which mode a daemon is to be started that has died by itself.
    pub fn mode(&self) -> Mode {
        match self.state {
            State::Promoting { .. } | State::Ordering { .. } => Mode::Orders,
            State::Reading | State::Withdrawing { .. } | State::Demoting { .. } => Mode::Reads,
        }
    }

    /// When to say [`Event::Tick`].
    pub fn wake_at(&self) -> Option<Instant> {
        match self.state {
            State::Withdrawing { until } | State::Promoting { until } => Some(until),
            State::Ordering { since } if self.may_rest() => Some(since + STAY),
            State::Demoting { again } => Some(again),
            State::Reading | State::Ordering { .. } => None,
        }
    }

    /// Takes what happened at `now`.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Gained => self.is_holder = true,
            Event::Lost => self.is_holder = false,
            Event::Work(work) => {
                if !work && self.has_work && matches!(self.state, State::Ordering { .. }) {
                    self.failures = 0;
                }
                self.has_work = work;
            }
            _ => {}
        }
        match (self.state, event) {
            (State::Withdrawing { .. } | State::Promoting { .. } | State::Ordering { .. }, _) if !self.is_holder => {
                self.retreat(now)
            }
            (State::Reading, _) => self.promote(now),
            (State::Withdrawing { .. }, Event::Withdrawn) => self.restart(now),
            (State::Withdrawing { until }, Event::Tick) if now >= until => self.restart(now),
            (State::Promoting { .. }, Event::Running(Mode::Orders)) => {
                self.state = State::Ordering { since: now };
                vec![Action::Open]
            }
            (State::Promoting { .. }, Event::NotRunning) => self.fail(now),
            (State::Promoting { until }, Event::Tick) if now >= until => self.fail(now),
            (State::Ordering { .. }, Event::NotStored) => self.fail(now),
            (State::Ordering { since }, Event::Work(_) | Event::Tick) if self.may_rest() && now >= since + STAY => {
                self.retreat(now)
            }
            (State::Demoting { .. }, Event::Running(Mode::Reads)) => {
                self.state = State::Reading;
                let mut actions: Vec<_> =
                    std::mem::take(&mut self.withdrawn).then_some(Action::Advertise).into_iter().collect();
                actions.extend(self.promote(now));
                actions
            }
            (State::Demoting { .. }, Event::NotRunning) => {
                self.state = State::Demoting { again: now + AGAIN };
                Vec::new()
            }
            (State::Demoting { again }, Event::Tick) if now >= again => {
                self.state = State::Demoting { again: now + RESTART };
                vec![Action::Restart(Mode::Reads)]
            }
            // What an earlier step had asked for and does not need any more.
            _ => Vec::new(),
        }
    }

    /// Whether an idle holder goes back to reading.
    fn may_rest(&self) -> bool {
        self.stay == Stay::Lazy && self.others == Others::Serve && !self.has_work
    }

    fn promote(&mut self, now: Instant) -> Vec<Action> {
        if !self.is_holder || (self.stay == Stay::Lazy && !self.has_work) {
            return Vec::new();
        }
        if self.others == Others::None {
            return self.restart(now);
        }
        self.withdrawn = true;
        self.state = State::Withdrawing { until: now + WITHDRAWAL };
        vec![Action::Withdraw]
    }

    fn restart(&mut self, now: Instant) -> Vec<Action> {
        self.state = State::Promoting { until: now + RESTART };
        vec![Action::Restart(Mode::Orders)]
    }

    /// Back to reading, before anything else.
    fn retreat(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            // Nothing was restarted yet.
            State::Withdrawing { .. } => {
                self.state = State::Reading;
                std::mem::take(&mut self.withdrawn).then_some(Action::Advertise).into_iter().collect()
            }
            state => {
                self.state = State::Demoting { again: now + RESTART };
                let close = matches!(state, State::Ordering { .. }).then_some(Action::Close);
                close.into_iter().chain([Action::Restart(Mode::Reads)]).collect()
            }
        }
    }

    fn fail(&mut self, now: Instant) -> Vec<Action> {
        self.failures += 1;
        // Tried again when work is reported next.
        self.has_work = false;
        let mut actions = self.retreat(now);
        if self.failures >= FAILURES {
            self.failures = 0;
            self.is_holder = false;
            actions.push(Action::Resign(PAUSE));
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        promotion: Promotion,
        now: Instant,
    }

    impl Scene {
        fn new(stay: Stay, others: Others) -> Self {
            Self { promotion: Promotion::new(stay, others), now: Instant::now() }
        }

        fn says(&mut self, event: Event) -> Vec<Action> {
            self.promotion.step(event, self.now)
        }

        fn later(&mut self, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self
        }

        /// To the moment in which the loops ask.
        fn ordering(stay: Stay, others: Others) -> Self {
            let mut scene = Self::new(stay, others);
            scene.says(Event::Gained);
            scene.says(Event::Work(true));
            scene.says(Event::Withdrawn);
            assert_eq!(scene.says(Event::Running(Mode::Orders)), [Action::Open]);
            scene
        }
    }

    #[test]
    fn a_holder_without_work_reads_and_one_with_work_goes_up_and_down() {
        let mut scene = Scene::new(Stay::Lazy, Others::Serve);
        assert_eq!(scene.says(Event::Work(true)), [], "not without the Lease");
        scene.says(Event::Work(false));
        assert_eq!(scene.says(Event::Gained), []);
        assert_eq!((scene.promotion.mode(), scene.promotion.wake_at()), (Mode::Reads, None), "for weeks");
        assert_eq!(scene.says(Event::Work(true)), [Action::Withdraw]);
        assert_eq!(scene.later(5).says(Event::Withdrawn), [Action::Restart(Mode::Orders)]);
        assert_eq!(scene.promotion.mode(), Mode::Orders, "also when it dies by itself");
        assert_eq!(scene.later(5).says(Event::Running(Mode::Orders)), [Action::Open]);
        assert_eq!(scene.later(60).says(Event::Work(false)), [], "more names may follow");
        assert_eq!(scene.later(60).says(Event::Work(true)), []);
        assert_eq!(scene.later(600).says(Event::Work(true)), [], "and it is not cut short");
        assert_eq!(scene.later(60).says(Event::Work(false)), [Action::Close, Action::Restart(Mode::Reads)]);
        assert_eq!(scene.later(5).says(Event::Running(Mode::Reads)), [Action::Advertise]);
        assert_eq!(scene.promotion.mode(), Mode::Reads);
    }

    #[test]
    fn a_withdrawal_that_nobody_reports_ends_by_itself() {
        let mut scene = Scene::new(Stay::Lazy, Others::Serve);
        scene.says(Event::Gained);
        scene.says(Event::Work(true));
        assert_eq!(scene.later(19).says(Event::Tick), []);
        assert_eq!(scene.promotion.wake_at(), Some(scene.now + Duration::from_secs(1)));
        assert_eq!(scene.later(1).says(Event::Tick), [Action::Restart(Mode::Orders)]);
    }

    #[test]
    fn the_only_replica_stays_and_withdraws_nothing() {
        let mut scene = Scene::new(Stay::Lazy, Others::None);
        scene.says(Event::Gained);
        assert_eq!(scene.says(Event::Work(true)), [Action::Restart(Mode::Orders)]);
        scene.says(Event::Running(Mode::Orders));
        assert_eq!(scene.later(86_400).says(Event::Work(false)), []);
        assert_eq!(scene.promotion.wake_at(), None);
    }

    #[test]
    fn a_sticky_holder_orders_until_it_is_none() {
        let mut scene = Scene::new(Stay::Sticky, Others::Serve);
        assert_eq!(scene.says(Event::Gained), [Action::Withdraw]);
        scene.says(Event::Withdrawn);
        scene.says(Event::Running(Mode::Orders));
        assert_eq!(scene.later(86_400).says(Event::Work(false)), []);
        assert_eq!(scene.says(Event::Lost), [Action::Close, Action::Restart(Mode::Reads)]);
        assert_eq!(scene.says(Event::Running(Mode::Reads)), [Action::Advertise]);
    }

    #[test]
    fn s18_a_loss_is_a_restart_to_read_before_anything_else() {
        let mut scene = Scene::ordering(Stay::Lazy, Others::Serve);
        assert_eq!(scene.says(Event::Lost), [Action::Close, Action::Restart(Mode::Reads)]);
        assert_eq!(scene.says(Event::Running(Mode::Orders)), [], "of the restart before");
        assert_eq!(scene.says(Event::NotRunning), [], "tried again");
        assert_eq!(scene.later(4).says(Event::Tick), []);
        assert_eq!(scene.later(1).says(Event::Tick), [Action::Restart(Mode::Reads)]);
        assert_eq!(scene.promotion.mode(), Mode::Reads);
        // The Lease comes back meanwhile: it is read first, and then ordered.
        assert_eq!(scene.says(Event::Gained), []);
        assert_eq!(scene.says(Event::Running(Mode::Reads)), [Action::Advertise, Action::Withdraw]);
        // Lost while peers still fail over: the daemon was not touched.
        assert_eq!(scene.says(Event::Lost), [Action::Advertise]);
        assert_eq!(scene.says(Event::Withdrawn), []);
        // Lost in the middle of the restart.
        scene.says(Event::Gained);
        scene.says(Event::Withdrawn);
        assert_eq!(scene.says(Event::Lost), [Action::Restart(Mode::Reads)]);
    }

    #[test]
    fn after_three_failures_another_replica_tries() {
        let mut scene = Scene::new(Stay::Lazy, Others::None);
        scene.says(Event::Gained);
        for failure in 1..=3 {
            assert_eq!(scene.says(Event::Work(true)), [Action::Restart(Mode::Orders)], "{failure}");
            let actions = match failure {
                1 => scene.says(Event::NotRunning),
                2 => scene.later(120).says(Event::Tick),
                _ => {
                    scene.says(Event::Running(Mode::Orders));
                    scene.says(Event::NotStored)
                }
            };
            let down = [Action::Close, Action::Restart(Mode::Reads), Action::Resign(PAUSE)];
            let expected = match failure {
                3 => &down[..],
                _ => &down[1..2],
            };
            assert_eq!(actions, expected, "{failure}");
            assert_eq!(scene.says(Event::Running(Mode::Reads)), [], "{failure}");
        }
        assert_eq!(scene.says(Event::Work(true)), [], "it is no holder any more");
        scene.says(Event::Gained);
        let mut fine = Scene::ordering(Stay::Lazy, Others::None);
        fine.promotion.failures = 2;
        fine.says(Event::Work(false));
        assert_eq!(fine.promotion.failures, 0, "a success forgets them");
    }

    /// Whatever happens in whatever order: only a holder is told to order, and one that is none reads in the end.
    #[test]
    fn nobody_orders_without_the_lease() {
        let mut numbers = crate::certs::lease::tests::Random::new(7);
        for _ in 0..300 {
            let (stay, others) = match numbers.below(4) {
                0 => (Stay::Sticky, Others::Serve),
                1 => (Stay::Sticky, Others::None),
                2 => (Stay::Lazy, Others::None),
                _ => (Stay::Lazy, Others::Serve),
            };
            let mut scene = Scene::new(stay, others);
            let (mut holds, mut mode, mut withdrawn) = (false, Mode::Reads, false);
            for step in 0..200 {
                let event = match if step < 150 { numbers.below(9) } else { 1 + numbers.below(2) * 7 } {
                    0 => Event::Gained,
                    1 => Event::Lost,
                    2 => Event::Work(true),
                    3 => Event::Work(false),
                    4 => Event::Withdrawn,
                    5 => Event::NotRunning,
                    6 => Event::NotStored,
                    7 => Event::Tick,
                    _ => Event::Running(mode),
                };
                scene.later(numbers.below(200));
                match event {
                    Event::Gained => holds = true,
                    Event::Lost => holds = false,
                    _ => {}
                }
                for action in scene.says(event) {
                    match action {
                        Action::Restart(to) => mode = to,
                        Action::Resign(_) => holds = false,
                        Action::Withdraw => withdrawn = true,
                        Action::Advertise => withdrawn = false,
                        Action::Open => assert!(holds && mode == Mode::Orders),
                        Action::Close => {}
                    }
                    assert!(action != Action::Restart(Mode::Orders) || holds);
                }
                assert!(holds || mode == Mode::Reads, "{event:?}");
            }
            assert!(!withdrawn, "and its Services are advertised again");
        }
    }
}
