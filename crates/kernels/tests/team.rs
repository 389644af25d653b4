//! The team of threads that share a sequence (`src/cpu/team.rs`), in every order of events that loom finds with a
//! limited number of preemptions: three members that join, exchange h, and end, whether or not the first one dissolves
//! the team or another panics.

#[path = "../src/cpu/team.rs"]
#[expect(dead_code, reason = "a part of the crate, in a test")]
mod team;

/// Loom's replacements for `src/cpu/sync.rs`.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
    pub(super) use loom::sync::{Condvar, Mutex};

    /// Does nothing: waits are bounded, or end with sleeping.
    pub(super) fn pause() {}

    pub(super) const SPINS: usize = 1;
    pub(super) const CHECKS: usize = 1;

    thread_local!(static NOW: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });

    /// A clock that advances between two readings by as much as the first member's patience.
    pub(super) fn now() -> u64 {
        NOW.set(NOW.get() + 60_000);
        NOW.get()
    }
}

use loom::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use team::{Meeting, Patience, Team, share};

const STEPS: usize = 2;

/// One timestep of one unit.
fn unit(j: usize, step: usize, h: &[f32], c: &mut f32) -> f32 {
    *c += h[j] + step as f32;
    h.iter().sum::<f32>() + j as f32 + *c
}

/// Runs a member as the kernel does. Returns its final state.
fn run(team: &Team, index: usize, members: usize, gives_up: bool) -> (Vec<f32>, Vec<f32>) {
    let (mut h, mut c) = (vec![0.0; members], vec![1.0; members]);
    let own = share(members, members, index);
    let mut tiles = if index == 0 { 0..members } else { own.clone() };
    let mut alone = false;
    let mut patience: Option<Patience> = None;
    let first = match index {
        0 => 0,
        _ => match team.join(&mut h, &mut c) {
            Some(step) => step,
            None => return (h, c),
        },
    };
    for step in first..STEPS {
        if index == 0 && !alone && patience.is_none() {
            patience = team.admit(step, &h, &c);
            if patience.is_some() {
                tiles = own.clone();
            }
        }
        let mut next = h.clone();
        loop {
            for j in tiles.clone() {
                next[j] = unit(j, step, &h, &mut c[j]);
            }
            if gives_up && step > first {
                team.abandon();
                return (h, c);
            }
            if alone || (index == 0 && patience.is_none()) {
                tiles = 0..members;
                break;
            }
            match team.exchange(step, own.clone(), &mut next, &mut c, patience.as_mut()) {
                Meeting::Held => break,
                Meeting::Dissolved if index > 0 => return (h, c),
                Meeting::Dissolved => {
                    tiles = own.end..members;
                    alone = true;
                }
            }
        }
        h = next;
    }
    if index == 0 && !alone {
        team.close();
    }
    (h, c)
}

fn expected(members: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut h, mut c) = (vec![0.0; members], vec![1.0; members]);
    for step in 0..STEPS {
        h = (0..members).map(|j| unit(j, step, &h, &mut c[j])).collect();
    }
    (h, c)
}

/// The number of explored orders in which the team was joined, and of those in which it was then dissolved.
fn explore(members: usize, preemptions: usize, gives_up: bool) -> (usize, usize) {
    static COUNTS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    COUNTS.iter().for_each(|c| c.store(0, Ordering::Relaxed));
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let team = Arc::new(Team::new(members, members, 1));
        let others: Vec<_> = (1..members)
            .map(|n| {
                let team = team.clone();
                loom::thread::spawn(move || run(&team, n, members, gives_up && n == 1))
            })
            .collect();
        let (h, mut c) = run(&team, 0, members, false);
        others.into_iter().for_each(|t| drop(t.join().expect("no member panics")));
        let shared = team.shared(STEPS);
        if !shared.is_empty() && shared.end == STEPS {
            team.collect_c(STEPS, share(members, members, 0), &mut c);
        }
        assert_eq!((h, c), expected(members), "together in {shared:?}");
        COUNTS[0].fetch_add(usize::from(team.was_joined()), Ordering::Relaxed);
        COUNTS[1].fetch_add(usize::from(team.was_dissolved()), Ordering::Relaxed);
    });
    (COUNTS[0].load(Ordering::Relaxed), COUNTS[1].load(Ordering::Relaxed))
}

#[test]
fn members_of_a_team_meet_in_every_order_of_events() {
    for (members, preemptions) in [(2, 3), (3, 3)] {
        let (joined, dissolved) = explore(members, preemptions, false);
        eprintln!("{members} members: {joined} orders joined, {dissolved} of them dissolved");
        assert!(joined > 100 && dissolved > 0 && dissolved < joined, "{joined} joined, {dissolved} dissolved");
    }
    // A member that stops in its second timestep, as one that panics does.
    let (joined, dissolved) = explore(3, 2, true);
    assert!(joined > 100 && dissolved > 0, "{joined} joined, {dissolved} dissolved");
}
