//! The activation functions on every device are within their stated error bounds.

use recurve::{Activation, Device, Tensor};
use recurve_reference::activate;
use recurve_tensor::bounds;
use recurve_tests::devices;

/// Floats of both signs and all exponents up to 90, dense where the functions bend.
fn sample() -> Vec<f32> {
    let coarse = (1e-30f32.to_bits()..90f32.to_bits()).step_by(4001);
    let fine = (0.125f32.to_bits()..16f32.to_bits()).step_by(331);
    let positive: Vec<f32> = coarse.chain(fine).map(f32::from_bits).collect();
    positive.iter().flat_map(|&x| [x, -x]).collect()
}

#[test]
fn sigmoid_and_tanh_keep_their_bounds() {
    let x = sample();
    for device in devices() {
        let cpu = device == Device::Cpu;
        let functions = [
            (Activation::Sigmoid, if cpu { bounds::SIGMOID } else { bounds::GPU }),
            (Activation::Tanh, if cpu { bounds::TANH } else { bounds::GPU }),
        ];
        for (function, bound) in functions {
            let y = Tensor::from_f32(&x, &[x.len()], &device).unwrap().activation(function).unwrap().to_vec().unwrap();
            for (&x, &y) in x.iter().zip(&y) {
                let error = (f64::from(y) - activate(function, f64::from(x))).abs();
                assert!(error < bound, "{function:?}({x:?}) = {y:?} on {device}: off by {error:e}");
            }
        }
    }
}
