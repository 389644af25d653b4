//! The least time that a device could need.

use recurve::{CellKind, Device, TensorError};

/// What devices can do at most, measured when it is first asked for.
#[derive(Default)]
pub struct Peaks {
    flops: Vec<(Device, f64)>,
    bandwidth: Vec<(Device, usize, f64)>,
}

impl Peaks {
    fn flops(&mut self, device: &Device) -> Result<f64, TensorError> {
        if let Some((_, known)) = self.flops.iter().find(|p| p.0 == *device) {
            return Ok(*known);
        }
        let rate = device.peak_flops()?;
        self.flops.push((device.clone(), rate));
        Ok(rate)
    }

    fn bandwidth(&mut self, device: &Device, bytes: usize) -> Result<f64, TensorError> {
        if let Some((.., known)) = self.bandwidth.iter().find(|p| p.0 == *device && p.1 == bytes) {
            return Ok(*known);
        }
        let rate = device.peak_bandwidth(bytes)?;
        self.bandwidth.push((device.clone(), bytes, rate));
        Ok(rate)
    }

    /// The least seconds for a shape: the input products at the peak of multiply-adds, then for every
    /// timestep the larger of its multiply-adds and of one reading of the recurrent weights from the
    /// memory in which they fit. What is read once (inputs, outputs, input weights) is left out, and so is
    /// everything that is no product.
    pub(crate) fn least(
        &mut self,
        device: &Device,
        kind: CellKind,
        [t, b, i, h]: [usize; 4],
        weight: usize,
    ) -> Result<f64, TensorError> {
        let flops = self.flops(device)?;
        let recurrent = kind.recurrent_weights(h, h);
        let products = |n: usize| 2.0 * (b * t) as f64 * n as f64 / flops;
        let reading = match recurrent * weight {
            0 => 0.0,
            bytes => (t * bytes) as f64 / self.bandwidth(device, bytes)?,
        };
        Ok(products(kind.gates() * h * i) + products(recurrent).max(reading))
    }
}
