//! The shortest time in which a device could compute a layer.

use recurve::{CellKind, Device, TensorError};

/// The peak rates of devices, each measured when it is first needed.
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

    /// The shortest time for a shape, in seconds: the input products at the peak rate of multiply-adds, then for every
    /// timestep the longer of its multiply-adds and of reading the recurrent weights once from the memory in which they
    /// fit. Data that is read once (inputs, outputs, input weights) and everything except matrix products is left out.
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
