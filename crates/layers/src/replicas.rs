//! One network on several devices that share a batch.

use crate::network::Network;
use crate::{Error, Result};
use recurve_tensor::{Device, Tensor, concat};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Copies of a network on several devices that share the sequences of a batch: several adapters, or an adapter and the
/// CPU. Each device gets a number of sequences in proportion to its speed so far. The result is that of a single device
/// within the error bounds of the kernels.
///
/// ```
/// # use recurve_layers::{Dense, Gru, Replicas, Sequential};
/// # use recurve_tensor::{Device, Tensor};
/// # fn main() -> Result<(), recurve_layers::Error> {
/// let network = Sequential::new().add(Gru::new(8)).add(Dense::new(1)).build(&[None, None, Some(3)], &Device::Cpu)?;
/// let replicas = Replicas::new(&network, &[Device::Cpu, Device::Cpu])?;
/// let x = Tensor::zeros(&[10, 7, 3], recurve_tensor::DType::F32, &Device::Cpu)?;
/// assert_eq!(replicas.forward(&x)?.dims(), [10, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Replicas {
    networks: Vec<Network>,
    /// The speed of each device in sequences per second; 0 before the first call.
    rates: Mutex<Vec<f64>>,
}

impl Replicas {
    /// Copies a network to each of these devices.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no device, or a layer is stateful or reads `[T, B, …]`; errors of the
    /// devices.
    pub fn new(network: &Network, devices: &[Device]) -> Result<Self> {
        let bad = |argument, message: &str| {
            Err(Error::Option { layer: "replicas".into(), argument, message: message.into() })
        };
        if devices.is_empty() {
            return bad("devices", "must name at least one device");
        }
        if network.is_stateful() {
            return bad("stateful", "layers keep the state of one batch, which replicas cannot split");
        }
        if network.time_major() {
            return bad("time_major", "must be off: replicas share the first dimension");
        }
        let networks = devices.iter().map(|d| network.to_device(d)).collect::<Result<Vec<_>>>()?;
        let rates = Mutex::new(vec![0.0; networks.len()]);
        Ok(Self { networks, rates })
    }

    /// The devices.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.networks.iter().map(Network::device)
    }

    /// Returns the output for an input on the CPU, `[B, …]`; the output is on the CPU too.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::Device`] unless `x` is on the CPU; otherwise as [`Network::forward`], from the device
    /// that failed first.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.device() != Device::Cpu {
            return Err(recurve_tensor::Error::Device {
                operation: "Replicas::forward",
                argument: "x",
                expected: Device::Cpu.to_string(),
                got: x.device().to_string(),
            }
            .into());
        }
        let batch = x.dims().first().copied().unwrap_or(0);
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let shares = shares(batch, &rates);
        let mut first = 0;
        let mut parts = Vec::with_capacity(shares.len());
        for &count in &shares {
            parts.push(if count > 0 { Some(x.slice(0, first..first + count)?) } else { None });
            first += count;
        }
        let run = |network: &Network, part: &Tensor| -> Result<(Tensor, f64)> {
            let start = Instant::now();
            let y = network.forward(&part.to_device(network.device())?)?.to_device(&Device::Cpu)?;
            Ok((y, part.dims()[0] as f64 / start.elapsed().as_secs_f64()))
        };
        let results: Vec<Option<Result<(Tensor, f64)>>> = std::thread::scope(|s| {
            let others: Vec<_> = self.networks[1..]
                .iter()
                .zip(&parts[1..])
                .map(|(n, p)| p.as_ref().map(|p| s.spawn(move || run(n, p))))
                .collect();
            let own = parts[0].as_ref().map(|p| run(&self.networks[0], p));
            let joined =
                others.into_iter().map(|h| h.map(|h| h.join().unwrap_or_else(|p| std::panic::resume_unwind(p))));
            std::iter::once(own).chain(joined).collect()
        });
        let mut outputs = Vec::with_capacity(results.len());
        let mut seen = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        for (result, rate) in results.into_iter().zip(seen.iter_mut()) {
            if let Some(result) = result {
                let (y, now) = result?;
                // The newest measurement weighs as much as all earlier ones, so a slow first call soon loses its
                // influence.
                *rate = if *rate == 0.0 { now } else { (*rate + now) / 2.0 };
                outputs.push(y);
            }
        }
        drop(seen);
        match outputs.len() {
            1 => Ok(outputs.remove(0)),
            _ => Ok(concat(&outputs.iter().collect::<Vec<_>>(), 0)?),
        }
    }
}

/// The number of sequences for each device, in proportion to its speed; equal shares while a speed is unknown. Except
/// for the first device, one whose share is less than one sequence gets none.
fn shares(batch: usize, rates: &[f64]) -> Vec<usize> {
    let even = rates.contains(&0.0);
    let weight = |n: usize| if even { 1.0 } else { rates[n] };
    let total: f64 = (0..rates.len()).map(weight).sum();
    let mut shares: Vec<usize> = (0..rates.len()).map(|n| (batch as f64 * weight(n) / total) as usize).collect();
    let fastest = (0..rates.len()).max_by(|&a, &b| weight(a).total_cmp(&weight(b))).unwrap_or(0);
    shares[fastest] += batch - shares.iter().sum::<usize>();
    shares
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn shares_follow_the_rates_and_lose_nobody() {
        assert_eq!(shares(10, &[0.0, 0.0, 0.0]), [3, 3, 4]);
        assert_eq!(shares(100, &[30.0, 10.0]), [75, 25]);
        assert_eq!(shares(3, &[1.0, 1000.0]), [0, 3]);
        assert_eq!(shares(1, &[1.0]), [1]);
        for batch in 0..50 {
            assert_eq!(shares(batch, &[3.0, 1.7, 12.0]).iter().sum::<usize>(), batch);
        }
    }
}
