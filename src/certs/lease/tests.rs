//! The election, played with any number of replicas over one pretend record and one pretend clock. Pure.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn elector(ordinal: u32, now: Instant) -> Elector {
    Elector::new(format!("pg-{ordinal}_u{ordinal}"), ordinal, Timing::of(MINUTE), now)
}

/// Numbers that a failing seed repeats.
pub(in crate::certs) struct Random {
    seed: u64,
    count: u64,
}

impl Random {
    pub(in crate::certs) fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    pub(in crate::certs) fn below(&mut self, bound: u64) -> u64 {
        use std::hash::{DefaultHasher, Hasher as _};
        self.count += 1;
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write_u64(self.count);
        hasher.finish() % bound
    }
}

/// A server that may be cut off from some.
#[derive(Default)]
pub(in crate::certs) struct Server {
    pub(in crate::certs) record: Option<Record>,
    pub(super) version: u64,
}

impl Server {
    pub(in crate::certs) fn serve(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Read => self.record.clone().map_or(Answer::Absent, Answer::Found),
            Ask::Create(_) if self.record.is_some() => Answer::Conflict,
            Ask::Update(_) if self.record.is_none() => Answer::Absent,
            Ask::Update(ref new) if self.record.as_ref().map(|old| &old.version) != Some(&new.version) => {
                Answer::Conflict
            }
            Ask::Create(new) | Ask::Update(new) => {
                self.version += 1;
                let new = Record { version: self.version.to_string(), ..new };
                self.record = Some(new.clone());
                Answer::Written(new)
            }
        }
    }
}

/// Plays one replica at `now` until it waits; what changed.
fn play(elector: &mut Elector, server: &mut Server, now: Instant, reaches: bool) -> Vec<Change> {
    let mut changes = vec![elector.expire(now)];
    while let Some(ask) = elector.ask(now, Timestamp::UNIX_EPOCH) {
        let answer = if reaches { server.serve(ask) } else { Answer::Failed };
        changes.push(elector.answered(answer, now, now, 0.5));
    }
    changes.retain(|change| *change != Change::None);
    changes
}

#[test]
fn the_lowest_ordinal_creates_it_and_the_others_wait() {
    let start = Instant::now();
    let mut server = Server::default();
    let mut all: Vec<_> = (0..3).map(|ordinal| elector(ordinal, start)).collect();
    // The others look first and find nothing; still the first one comes first.
    for elector in all.iter_mut().rev() {
        play(elector, &mut server, start, true);
    }
    assert!(all[0].holds(start) && !all[1].holds(start) && !all[2].holds(start));
    assert_eq!(server.record.as_ref().unwrap().holder, "pg-0_u0");
    assert_eq!(server.record.as_ref().unwrap().transitions, 0);
    play(&mut all[1], &mut server, start + Duration::from_secs(2), true);
    assert!(!all[1].holds(start + Duration::from_secs(2)));
    assert_eq!(all[1].seen().unwrap().holder, "pg-0_u0");
}

/// Runs three replicas second by second; `reaches` says who reaches the server when. Who holds, at each second.
fn run(seconds: u64, reaches: impl Fn(usize, u64) -> bool) -> Vec<Vec<usize>> {
    let start = Instant::now();
    let mut server = Server::default();
    let mut all: Vec<_> = (0..3).map(|ordinal| elector(ordinal, start)).collect();
    (0..seconds)
        .map(|second| {
            let now = start + Duration::from_secs(second);
            for (n, elector) in all.iter_mut().enumerate() {
                play(elector, &mut server, now, reaches(n, second));
            }
            (0..3).filter(|n| all[*n].holds(now)).collect()
        })
        .collect()
}

#[test]
fn a_dead_holder_is_replaced_within_105_seconds() {
    let holders = run(400, |n, second| n != 0 || second < 100);
    assert_eq!(holders[99], [0]);
    let replaced = holders.iter().position(|holders| *holders == [1] || *holders == [2]).unwrap();
    assert!((150..=205).contains(&replaced), "after {} s", replaced - 100);
    assert!(holders[replaced..].iter().all(|now| *now == holders[replaced]), "and stays");
}

#[test]
fn a_holder_that_cannot_renew_gives_up_before_anybody_takes_over() {
    let holders = run(300, |n, second| n != 0 || second < 100);
    let gave_up = holders.iter().skip(100).position(Vec::is_empty).unwrap();
    assert!((30..=41).contains(&gave_up), "after {gave_up} s");
    let free = holders.iter().skip(100 + gave_up).position(|now| !now.is_empty()).unwrap();
    assert!(free >= 19, "twenty seconds in which nobody holds it");
}

#[test]
fn a_short_outage_changes_nothing() {
    let holders = run(400, |_, second| !(100..130).contains(&second));
    assert!(holders[10..].iter().all(|now| *now == [0]));
}

#[test]
fn a_conflict_that_was_our_own_write_is_no_loss() {
    let start = Instant::now();
    let mut server = Server::default();
    let mut one = elector(0, start);
    play(&mut one, &mut server, start, true);
    // The renewal arrives, its answer does not.
    let sent = start + Duration::from_secs(10);
    let ask = one.ask(sent, Timestamp::UNIX_EPOCH).unwrap();
    server.serve(ask);
    assert_eq!(one.answered(Answer::Failed, sent, sent + Duration::from_secs(5), 0.5), Change::None);
    let again = sent + Duration::from_secs(7);
    assert!(play(&mut one, &mut server, again, true).is_empty());
    let looked = again + Duration::from_secs(2);
    assert!(play(&mut one, &mut server, looked, true).is_empty());
    assert!(one.holds(looked) && one.gives_up_at() == Some(looked + Duration::from_secs(40)));
}

#[test]
fn a_release_is_taken_at_once_and_counted() {
    let start = Instant::now();
    let mut server = Server::default();
    let (mut one, mut two) = (elector(0, start), elector(1, start));
    play(&mut one, &mut server, start, true);
    let now = start + Duration::from_secs(30);
    play(&mut one, &mut server, now, true);
    let release = one.release(now, Timestamp::UNIX_EPOCH, Duration::from_secs(1800)).unwrap();
    assert!(matches!(server.serve(release), Answer::Written(_)));
    assert!(!one.holds(now));
    play(&mut two, &mut server, now, true);
    assert!(two.holds(now));
    let record = server.record.clone().unwrap();
    assert_eq!((record.holder.as_str(), record.transitions), ("pg-1_u1", 1));
    // Who released does not compete, even when it is free again.
    let release = two.release(now, Timestamp::UNIX_EPOCH, Duration::ZERO).unwrap();
    server.serve(release);
    let later = now + Duration::from_secs(120);
    assert!(play(&mut one, &mut server, later, true).is_empty() && !one.holds(later));
    assert!(two.release(now, Timestamp::UNIX_EPOCH, Duration::ZERO).is_none(), "nothing to give back twice");
}

#[test]
fn somebody_else_in_our_record_means_that_it_is_lost() {
    let start = Instant::now();
    let mut server = Server::default();
    let mut one = elector(0, start);
    play(&mut one, &mut server, start, true);
    server.record.as_mut().unwrap().holder = "pg-1_u1".to_owned();
    server.record.as_mut().unwrap().version = "99".to_owned();
    let now = start + Duration::from_secs(10);
    assert!(play(&mut one, &mut server, now, true).is_empty(), "a conflict, which may be our own");
    assert_eq!(play(&mut one, &mut server, now + Duration::from_secs(2), true), [Change::Lost]);
}

#[test]
fn a_deleted_lease_is_made_again_by_its_holder() {
    let start = Instant::now();
    let mut server = Server::default();
    let (mut one, mut two) = (elector(0, start), elector(1, start));
    play(&mut one, &mut server, start, true);
    play(&mut two, &mut server, start + Duration::from_secs(3), true);
    server.record = None;
    // The other one notices first, and knows that there was a holder.
    let noticed = start + Duration::from_secs(9);
    two.answered(Answer::Absent, noticed, noticed, 0.5);
    play(&mut two, &mut server, noticed, true);
    assert!(server.record.is_none() && !two.holds(noticed));
    let renewal = start + Duration::from_secs(10);
    assert!(play(&mut one, &mut server, renewal, true).is_empty(), "neither lost nor acquired");
    assert_eq!(server.record.as_ref().unwrap().holder, "pg-0_u0");
    // Without a holder, it is made after the duration that the last one had.
    server.record = None;
    let after = noticed + MINUTE;
    play(&mut two, &mut server, after, true);
    assert!(two.holds(after) && !one.holds(after));
}

#[test]
fn an_answer_that_comes_too_late_is_no_tenure() {
    let start = Instant::now();
    let mut server = Server::default();
    let mut one = elector(0, start);
    let ask = Ask::Create(one.record(None, Timestamp::UNIX_EPOCH));
    let answer = server.serve(ask);
    let late = start + Duration::from_secs(41);
    assert_eq!(one.answered(answer, start, late, 0.5), Change::None);
    assert!(!one.holds(late));
    assert_eq!(play(&mut one, &mut server, late, true), [Change::Acquired], "by a write of now");
}

#[test]
fn a_release_meets_the_renewal_before_it() {
    let start = Instant::now();
    let mut server = Server::default();
    let mut one = elector(0, start);
    play(&mut one, &mut server, start, true);
    let now = start + Duration::from_secs(10);
    let renewal = one.ask(now, Timestamp::UNIX_EPOCH).unwrap();
    server.serve(renewal);
    let mut ask = one.release(now, Timestamp::UNIX_EPOCH, Duration::ZERO);
    let mut asked = 0;
    while let Some(next) = ask {
        asked += 1;
        ask = one.release_again(server.serve(next), Timestamp::UNIX_EPOCH);
    }
    assert_eq!((asked, server.record.as_ref().unwrap().holder.as_str()), (3, ""));
    let other = Record { holder: "pg-1_u1".to_owned(), ..Record::default() };
    assert_eq!(one.release_again(Answer::Found(other), Timestamp::UNIX_EPOCH), None);
}

#[test]
fn small_durations_scale() {
    let timing = Timing::of(Duration::from_secs(3));
    assert_eq!((timing.renew, timing.give_up), (Duration::from_millis(500), Duration::from_secs(2)));
}

/// Random schedules of outages, slow answers and lost answers: never two holders, and always one again in the end.
#[test]
fn there_are_never_two_holders() {
    for seed in 0..200_u64 {
        let mut numbers = Random::new(seed);
        let mut random = |bound| numbers.below(bound);
        let start = Instant::now();
        let mut server = Server::default();
        let mut all: Vec<_> = (0..3).map(|ordinal| elector(ordinal, start)).collect();
        // Per replica: cut off until; and an answer on its way, with when it was sent and when it arrives.
        let mut cut = [0_u64; 3];
        let mut answers: [Option<(Answer, Instant, u64)>; 3] = [const { None }; 3];
        for second in 0..1500_u64 {
            let now = start + Duration::from_secs(second);
            let calm = second >= 1200;
            for n in 0..3 {
                if !calm && random(60) == 0 {
                    cut[n] = second + random(150);
                }
                all[n].expire(now);
                if let Some((answer, sent, _)) = answers[n].take_if(|(.., arrives)| *arrives <= second) {
                    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
                    let chance = random(100) as f64 / 100.0;
                    all[n].answered(answer, sent, now, chance);
                }
                if answers[n].is_none()
                    && let Some(ask) = all[n].ask(now, Timestamp::UNIX_EPOCH)
                {
                    let reaches = calm || second >= cut[n];
                    let answer = if reaches { server.serve(ask) } else { Answer::Failed };
                    let lost = !calm && random(10) == 0;
                    let delay = if calm { 0 } else { random(12) };
                    answers[n] = Some((if lost { Answer::Failed } else { answer }, now, second + delay));
                }
            }
            let holders: Vec<_> = (0..3).filter(|n| all[*n].holds(now)).collect();
            assert!(holders.len() <= 1, "seed {seed}, second {second}: {holders:?}");
        }
        assert_eq!(all.iter().filter(|one| one.holds(start + Duration::from_secs(1499))).count(), 1, "seed {seed}");
    }
}
