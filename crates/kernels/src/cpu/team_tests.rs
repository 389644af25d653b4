//! Tests of teams with real threads; `tests/team.rs` tests them with loom.

use super::team::{Meeting, OnPanic, Patience, Team, share};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A member that panics during a timestep dissolves the team; the first member continues alone, and the caller gets the
/// panic.
#[test]
fn a_panic_in_a_member_hangs_nobody() {
    for panics in 0..3 {
        let team = Team::new(3, 3, 1);
        let first_ended = AtomicBool::new(false);
        let member = |index: usize| {
            let _guard = OnPanic(&team);
            let (mut h, mut c) = ([0.0; 3], [0.0; 3]);
            let mut patience = None;
            let own = share(3, 3, index);
            let from = if index > 0 {
                team.join(&mut h, &mut c).expect("the first member waits for all")
            } else {
                while patience.is_none() {
                    patience = team.admit(0, &h, &c);
                    std::thread::yield_now();
                }
                // In this test the team must not be dissolved because the other threads start slowly.
                patience = Some(Patience::ENDLESS);
                0
            };
            for step in from..1_000_000 {
                assert!(index != panics || step < 3, "on purpose");
                let patience = patience.as_mut();
                if team.exchange(step, own.clone(), &mut h, &mut c, patience) == Meeting::Dissolved {
                    break;
                }
            }
            if index == 0 {
                first_ended.store(true, std::sync::atomic::Ordering::Relaxed);
                team.close();
            }
        };
        let ended = std::thread::scope(|s| {
            let threads: Vec<_> = (0..3).map(|n| s.spawn(move || member(n))).collect();
            threads.into_iter().map(|t| t.join().is_ok()).collect::<Vec<_>>()
        });
        assert_eq!(ended, [0, 1, 2].map(|n| n != panics));
        assert!(team.was_dissolved());
        assert_eq!(first_ended.into_inner(), panics != 0);
    }
}

/// The first member does not wait forever for one that never reaches the end of a timestep.
#[test]
fn the_first_member_goes_on_without_one_that_does_not_come() {
    let team = Team::new(2, 2, 1);
    std::thread::scope(|s| {
        let other = s.spawn(|| {
            let (mut h, mut c) = ([0.0; 2], [0.0; 2]);
            let step = team.join(&mut h, &mut c).expect("in time");
            assert_eq!((step, h, c), (4, [1.0, 2.0], [3.0, 4.0]));
            c[1] = 5.0;
            assert_eq!(team.exchange(4, 1..2, &mut h, &mut c, None), Meeting::Held);
            c[1] = 6.0;
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(team.exchange(5, 1..2, &mut h, &mut c, None), Meeting::Dissolved);
        });
        let (mut h, mut c) = ([1.0, 2.0], [3.0, 4.0]);
        let mut patience = loop {
            match team.admit(4, &h, &c) {
                Some(patience) => break patience,
                None => std::thread::yield_now(),
            }
        };
        let mut endless = Patience::ENDLESS;
        assert_eq!(team.exchange(4, 0..1, &mut h, &mut c, Some(&mut endless)), Meeting::Held);
        assert_eq!(team.exchange(5, 0..1, &mut h, &mut c, Some(&mut patience)), Meeting::Dissolved);
        // The c of the other member from before the timestep.
        assert_eq!(c, [3.0, 5.0]);
        other.join().expect("no panic");
    });
    assert_eq!(team.shared(10), 4..5);
}
