//! Live audio: many streams through one network, each with its own state. Streams join and leave while the others
//! continue.
//!
//! `cargo run --release --example streams`

use recurve::{Dense, Device, Gru, Sequential, StreamId, Streams};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::best()?;
    // The input is a frame of 42 features, the output the probability of speech.
    let network = Sequential::new()
        .add(Dense::new(24))
        .add(Gru::new(48).return_sequences(true))
        .add(Dense::new(1).activation(recurve::Activation::Sigmoid))
        .build(&[None, None, Some(42)], &device)?;
    let mut streams = Streams::new(&network)?;
    let mut live: BTreeMap<StreamId, usize> = BTreeMap::new();
    let began = Instant::now();
    let mut frames = 0;
    for tick in 0..200usize {
        // Ten streams join at every tick; each leaves after 50 frames.
        live.extend((0..10).map(|_| (streams.join(), 0)));
        let audio: Vec<(StreamId, Vec<f32>)> = live
            .iter()
            .map(|(&id, &n)| (id, (0..42).map(|i| ((n * 42 + i + tick) as f32 * 0.1).sin()).collect()))
            .collect();
        let given: Vec<(StreamId, &[f32])> = audio.iter().map(|(id, frame)| (*id, &frame[..])).collect();
        let speech = streams.step(&given)?.to_vecs()?;
        frames += speech.len();
        live.values_mut().for_each(|n| *n += 1);
        for id in live.iter().filter(|(_, n)| **n == 50).map(|(id, _)| *id).collect::<Vec<_>>() {
            streams.leave(id)?;
            live.remove(&id);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{frames} frames of up to 500 streams at once in {seconds:.2} s on {device}: {:.0} a second",
        frames as f64 / seconds
    );
    Ok(())
}
