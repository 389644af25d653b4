//! Memory that stays the same over many steps of training: buffers of the device, and what the system counts of the
//! process.

use recurve::{Dense, Device, Embedding, Gru, Lstm, Network, Sequential, Tensor};
use recurve_tests::wanted_gpu;
use recurve_train::{Adam, Batch, Loss, LossScale, StepOptions, Training};
use std::sync::{Mutex, PoisonError};

/// Each test holds this lock, because the memory of the whole process is measured.
static TURN: Mutex<()> = Mutex::new(());

fn devices() -> impl Iterator<Item = Device> {
    std::iter::once(Device::Cpu).chain(wanted_gpu())
}

/// Bytes of the process in memory, where the system tells them.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? << 10)
}

/// What the device has made and holds.
fn held(device: &Device) -> (u64, u64) {
    (device.buffers_made(), device.gpu().map_or(0, |g| g.bytes_held()))
}

/// Runs `call` so many times, after a fifth as many that may still make buffers.
fn stays_flat(name: &str, device: &Device, count: usize, mut call: impl FnMut(usize)) {
    (0..count / 5).for_each(&mut call);
    device.synchronize().unwrap();
    let (before, memory) = (held(device), resident());
    (0..count).for_each(&mut call);
    device.synchronize().unwrap();
    let after = held(device);
    if device.gpu().is_none() {
        assert_eq!(after, before, "{name}: buffers of the CPU");
    }
    // When a GPU is done with a buffer is not the same in every step, so its pool may grow by a few more.
    let made = after.0 - before.0;
    assert!(made <= count as u64 / 20, "{name} on {device}: {made} buffers more after {count} calls");
    let bytes = after.1.saturating_sub(before.1);
    assert!(bytes <= before.1 / 4, "{name} on {device}: {bytes} bytes more of {}", before.1);
    if let (Some(before), Some(after)) = (memory, resident()) {
        // What an allocator and a driver take and give back. The weights of a step would be some 30 MB on the CPU.
        let allowed = if device.gpu().is_none() { 3 << 20 } else { 16 << 20 };
        let grown = after.saturating_sub(before);
        assert!(grown < allowed, "{name} on {device}: {grown} bytes more after {count} calls");
    }
}

fn options() -> StepOptions {
    StepOptions::new(Loss::mean_squared_error(), Adam::keras())
}

/// Weights of 40 kB in all on the CPU, and fewer on a GPU, which may be a program.
fn network(device: &Device, stateful: bool) -> Network {
    let lstm = Lstm::new(if *device == Device::Cpu { 48 } else { 8 })
        .return_sequences(true)
        .stateful(stateful)
        .dropout(0.1)
        .recurrent_dropout(0.1);
    Sequential::new().add(lstm).add(Dense::new(2)).build(&[None, None, Some(4)], device).unwrap()
}

#[test]
fn a_thousand_steps() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for device in devices() {
        let x = Tensor::rand_uniform(&[3, 4, 4], -1.0..1.0, 1, &device).unwrap();
        let y = Tensor::rand_uniform(&[3, 4, 2], -1.0..1.0, 2, &device).unwrap();
        let lengths = Tensor::from_u32(&[4, 2, 1], &[3], &device).unwrap();
        let (inputs, targets) = ([&x], [&y]);
        for (name, stateful, options, count) in [
            ("stateful steps", true, options(), 1000),
            ("steps with checkpoints", false, options().checkpoints(true), 200),
            ("steps in mixed precision", false, options().mixed_precision(LossScale::pytorch()), 200),
        ] {
            let mut training = Training::new(&network(&device, stateful), options).unwrap();
            stays_flat(name, &device, count, |n| {
                let result = training.step(&Batch::new(&inputs, &targets).lengths(&lengths)).unwrap();
                // A program reads the loss now and then.
                if n % 100 == 0 {
                    assert!(result.loss.to_vec().unwrap()[0].is_finite());
                }
            });
            assert_eq!(training.steps(), count as u64 / 5 * 6);
        }
    }
}

#[test]
fn a_thousand_gradients_in_and_out() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::Cpu;
    let layers = Sequential::new().add(Embedding::new(50, 16).mask_zero(true)).add(Gru::new(48)).add(Dense::new(2));
    let network = layers.build(&[None, None], &device).unwrap();
    let ids: Vec<u32> = (0..24).map(|n| n * 7 % 50).collect();
    let x = Tensor::from_u32(&ids, &[4, 6], &device).unwrap();
    let y = Tensor::rand_uniform(&[4, 2], -1.0..1.0, 2, &device).unwrap();
    let mut training = Training::new(&network, options()).unwrap();
    stays_flat("gradients", &device, 1000, |_| {
        let (_, g) = training.all_gradients(&Batch::new(&[&x], &[&y])).unwrap();
        training.apply_gradients(&g.weights.iter().collect::<Vec<_>>()).unwrap();
    });
}

/// A thousand pieces, and on the CPU a thousand of one sequence.
#[test]
fn truncated_steps_over_a_thousand_pieces() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for device in devices() {
        let x = Tensor::rand_uniform(&[2, 20, 4], -1.0..1.0, 1, &device).unwrap();
        let y = Tensor::rand_uniform(&[2, 20, 2], -1.0..1.0, 2, &device).unwrap();
        let (inputs, targets) = ([&x], [&y]);
        let mut training = Training::new(&network(&device, true), options()).unwrap();
        stays_flat("truncated steps", &device, 100, |_| {
            let results = training.step_truncated(&Batch::new(&inputs, &targets), 2).unwrap();
            assert_eq!(results.len(), 10);
        });
        assert_eq!(training.steps(), 1200);
    }

    // One call takes no more memory than its results: 3 MB, of which each buffer has some hundred bytes. Everything that
    // its steps compute would be 100 MB.
    let device = Device::Cpu;
    let mut training = Training::new(&network(&device, true), options()).unwrap();
    let x = Tensor::rand_uniform(&[2, 2000, 4], -1.0..1.0, 1, &device).unwrap();
    let y = Tensor::rand_uniform(&[2, 2000, 2], -1.0..1.0, 2, &device).unwrap();
    let before = resident();
    let results = training.step_truncated(&Batch::new(&[&x], &[&y]), 2).unwrap();
    assert_eq!(results.len(), 1000);
    assert!(results.last().unwrap().loss.to_vec().unwrap()[0].is_finite());
    if let (Some(before), Some(after)) = (before, resident()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 24 << 20, "{grown} bytes on {device}");
    }
}
