//! Choosing a device.

use crate::gpu::{self, Gpu};
use crate::{Error, Result};
use core::fmt;
use std::str::FromStr;

/// The device on which a tensor is stored and operations run. There are no other kinds: a further API for GPUs is a
/// backend of [`Gpu`].
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU, or a software implementation of one. Without the feature `gpu` no value of this variant exists.
    Gpu(Gpu),
}

/// What kind of device an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares memory with the CPU.
    Integrated,
    /// A GPU provided to a virtual machine.
    Virtual,
    /// A GPU of unknown kind.
    Other,
    /// A software implementation that runs on the CPU (lavapipe, SwiftShader, WARP).
    Software,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Other => "GPU",
            Self::Software => "software",
        })
    }
}

/// An adapter that the system offers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AdapterSummary {
    /// Name given by the driver.
    pub name: String,
    /// `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: &'static str,
    /// Name and version of the driver.
    pub driver: String,
    /// Its kind.
    pub kind: AdapterKind,
    /// Its place on the PCI bus, which other programs name the same GPU by (`nvidia-smi`, Linux's
    /// `/sys/bus/pci/devices`). `None` for an adapter that is not on the bus or whose driver does not tell: Vulkan and DX12
    /// tell it, Metal and OpenGL do not. DX12 finds it by the model, so equal GPUs in one machine have the place of the
    /// first.
    pub pci: Option<PciAddress>,
    /// Size of the largest storage buffer binding, in bytes.
    pub max_binding_bytes: u64,
    /// Size of workgroup memory, in bytes.
    pub max_workgroup_bytes: u32,
    /// Largest number of lanes (invocations) of a workgroup.
    pub max_workgroup_lanes: u32,
    /// Sizes of the smallest and largest subgroup, in lanes; 0 if unknown.
    pub subgroup: (u32, u32),
    /// Whether f16 can be stored.
    pub f16: bool,
    /// Whether the time that the GPU spends can be measured.
    pub timestamps: bool,
}

/// A place on the PCI bus, in text `domain:bus:device.function` in hexadecimal: `0000:65:00.0`. The domain may be left out,
/// and may have the eight digits of `nvidia-smi`; case is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct PciAddress {
    /// The domain, 0 in most machines.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The device on the bus, below 32.
    pub device: u8,
    /// The function of the device, below 8.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let address = || {
            // At most `digits` hexadecimal digits, without the sign that the standard library would take.
            let number = |text: &str, digits: usize| {
                let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
                fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
            };
            let (buses, place) = s.rsplit_once(':')?;
            let (domain, bus) = buses.split_once(':').unwrap_or(("0", buses));
            let (device, function) = place.split_once('.')?;
            Some(Self {
                domain: number(domain, 8)?,
                bus: number(bus, 2)?.try_into().ok()?,
                device: number(device, 2)?.try_into().ok().filter(|d| *d < 32)?,
                function: number(function, 1)?.try_into().ok().filter(|f| *f < 8)?,
            })
        };
        address().ok_or_else(|| Error::Argument {
            operation: "device",
            argument: "PCI address",
            message: format!("`{s}` is not of the form 0000:65:00.0 (domain:bus:device.function in hexadecimal)"),
        })
    }
}

/// A request for a device, as on the command line: `auto`, `cpu`, `gpu`, `gpu:NAME`, `vulkan`, `metal`, `dx12`, `gl`,
/// a backend with a name such as `vulkan:llvmpipe`, or the place of a GPU on the PCI bus, `pci:0000:65:00.0`. The name may
/// be any part of the adapter's name; case is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceSelector {
    /// A hardware GPU if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU of this backend, or of any if `None`. A software GPU must be asked for by name.
    Gpu {
        /// `vulkan`, `metal`, `dx12` or `gl`.
        backend: Option<&'static str>,
        /// A part of the adapter's name.
        name: Option<String>,
    },
    /// The GPU at this place of the PCI bus.
    Pci(PciAddress),
}

const BACKENDS: [&str; 4] = ["vulkan", "metal", "dx12", "gl"];

impl FromStr for DeviceSelector {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let (head, name) = match s.split_once(':') {
            Some((head, name)) => (head, Some(name)),
            None => (s, None),
        };
        let head = head.to_ascii_lowercase();
        let backend = BACKENDS.into_iter().find(|b| *b == head);
        match (head.as_str(), name) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            (_, Some("")) => Err(bad_selector(s)),
            ("pci", Some(address)) => address.parse().map(Self::Pci),
            _ if head == "gpu" || backend.is_some() => Ok(Self::Gpu { backend, name: name.map(str::to_owned) }),
            _ => Err(bad_selector(s)),
        }
    }
}

fn bad_selector(s: &str) -> Error {
    Error::Argument {
        operation: "device",
        argument: "selector",
        message: format!(
            "`{s}` is not one of auto, cpu, gpu, gpu:NAME, vulkan, metal, dx12, gl (a backend may \
             carry a name too, as in vulkan:NAME), pci:0000:65:00.0"
        ),
    }
}

impl Device {
    /// A hardware GPU if there is one, else the CPU. A software GPU is never chosen, because Recurve's CPU code is many
    /// times faster.
    ///
    /// # Errors
    /// Those of [`Self::check`]. A GPU that cannot be opened is skipped.
    pub fn best() -> Result<Self> {
        Self::open(&DeviceSelector::Auto)
    }

    /// Opens the device that a text such as `gpu` or `vulkan:llvmpipe` names; see [`DeviceSelector`] for the forms.
    ///
    /// # Errors
    /// [`Error::Argument`] if the text is not a selector; [`Error::NoDevice`] if no device matches. Without the feature
    /// `gpu` no GPU matches.
    pub fn by_name(selector: &str) -> Result<Self> {
        Self::open(&selector.parse()?)
    }

    /// Opens the device that `selector` describes.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if no device matches; it names the devices that exist. Those of [`Self::check`].
    pub fn open(selector: &DeviceSelector) -> Result<Self> {
        if cfg!(all(target_arch = "wasm32", feature = "gpu")) && *selector != DeviceSelector::Cpu {
            return Err(Error::Unsupported {
                operation: "Device::open",
                feature: "blocking; use Device::open_async",
                device: "the browser".into(),
            });
        }
        gpu::block_on(Self::open_async(selector))
    }

    /// [`Self::open`] as a future, which is required in a browser, where nothing may block. On other targets, drivers
    /// are loaded and shaders compiled on the calling thread; only the device's own work is awaited. How such a future
    /// is driven is described at [`Tensor::to_vec_async`](crate::Tensor::to_vec_async).
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_async(selector: &DeviceSelector) -> Result<Self> {
        let device = match selector {
            DeviceSelector::Cpu => Self::Cpu,
            DeviceSelector::Auto => Gpu::open(None, None).await.map_or(Self::Cpu, Self::Gpu),
            DeviceSelector::Gpu { backend, name } => Gpu::open(*backend, name.as_deref()).await.map(Self::Gpu)?,
            DeviceSelector::Pci(address) => Gpu::open_at(*address).await.map(Self::Gpu)?,
        };
        device.check()?;
        Ok(device)
    }

    /// Checks the environment variables that affect the device. On the CPU, `RECURVE_SIMD` may restrict the vector
    /// instructions (`avx512`, `avx2`, `neon`, `scalar`; empty means unset); other names, and instructions that this
    /// processor lacks, are refused. Opening a device and making a tensor call this.
    ///
    /// # Errors
    /// [`Error::Argument`] if `RECURVE_SIMD` is refused.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Cpu => crate::cpu::check_simd(),
            Self::Gpu(_) => Ok(()),
        }
    }

    /// The CPU and every adapter that can be opened, software GPUs included. A cross-check compares these.
    pub fn all() -> Vec<Self> {
        let mut devices = vec![Self::Cpu];
        devices.extend(gpu::block_on(Gpu::open_all()).into_iter().map(Self::Gpu));
        devices
    }

    /// The adapters of Vulkan, Metal and DX12 (OpenGL is only searched if a selector names `gl`). No device is opened.
    /// In a browser use [`Self::adapters_async`].
    pub fn adapters() -> Vec<AdapterSummary> {
        gpu::block_on(Self::adapters_async())
    }

    /// [`Self::adapters`] as a future.
    pub async fn adapters_async() -> Vec<AdapterSummary> {
        Gpu::adapters().await
    }

    /// The GPU; `None` for the CPU.
    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Cpu => None,
            Self::Gpu(gpu) => Some(gpu),
        }
    }

    /// `cpu`, `vulkan`, `metal`, `dx12` or `gl`.
    pub fn backend(&self) -> &'static str {
        self.gpu().map_or("cpu", |g| g.summary().backend)
    }

    /// The adapter's name, or the CPU's vector instructions.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu => format!("CPU ({})", crate::cpu::simd_name()),
            Self::Gpu(g) => g.summary().name.clone(),
        }
    }

    /// Gives unused memory back to the system.
    pub fn trim(&self) {
        match self {
            Self::Cpu => crate::cpu::trim(),
            Self::Gpu(g) => g.trim(),
        }
    }

    /// The number of buffers made on this device since it was opened (on the CPU, since the program started). If a call
    /// does not change it, the call allocated no buffer.
    pub fn buffers_made(&self) -> u64 {
        match self {
            Self::Cpu => crate::cpu::buffers_made(),
            Self::Gpu(g) => g.buffers_made(),
        }
    }

    /// Waits until all recorded operations have run.
    ///
    /// # Errors
    /// Errors of the recorded operations.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Gpu(g) => g.block_on(g.synchronize_async()),
        }
    }

    /// [`Self::synchronize`] as a future.
    ///
    /// # Errors
    /// As [`Self::synchronize`].
    pub async fn synchronize_async(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Gpu(g) => g.synchronize_async().await,
        }
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu, Self::Cpu) => true,
            (Self::Gpu(a), Self::Gpu(b)) => a.same(b),
            _ => false,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str(&self.name()),
            Self::Gpu(g) => write!(f, "{} [{}]", g.summary().name, g.summary().backend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let gpu = |backend, name: Option<&str>| DeviceSelector::Gpu { backend, name: name.map(Into::into) };
        let pci = |domain, bus, device, function| DeviceSelector::Pci(PciAddress { domain, bus, device, function });
        let cases = [
            ("auto", DeviceSelector::Auto),
            ("CPU", DeviceSelector::Cpu),
            ("gpu", gpu(None, None)),
            ("gpu:llvmpipe", gpu(None, Some("llvmpipe"))),
            ("Vulkan", gpu(Some("vulkan"), None)),
            ("vulkan:NVIDIA H100", gpu(Some("vulkan"), Some("NVIDIA H100"))),
            ("metal", gpu(Some("metal"), None)),
            ("dx12", gpu(Some("dx12"), None)),
            ("gl", gpu(Some("gl"), None)),
            ("pci:0000:65:00.0", pci(0, 0x65, 0, 0)),
            ("PCI:00000000:E1:1F.7", pci(0, 0xe1, 0x1f, 7)),
            ("pci:10000:01:02.3", pci(0x10000, 1, 2, 3)),
            ("pci:65:00.0", pci(0, 0x65, 0, 0)),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<DeviceSelector>().unwrap(), want, "{text}");
        }
        for bad in ["", "cuda", "gpu:", "cpu:0", "auto:x", "vulkan:", "pci", "pci:"] {
            let e = bad.parse::<DeviceSelector>().unwrap_err().to_string();
            assert!(e.contains("gpu:NAME"), "{bad}: {e}");
        }
        for bad in ["0", "65:00", "0000:65:00", "0000:65:20.0", "0000:65:00.8", "0000:165:00.0", "+000:65:00.0"]
            .into_iter()
            .chain(["0000:65:00.0 ", "0:0000:65:00.0", "000000000:65:00.0", "0000::00.0", "0000:65:00.", "é:65:00.0"])
        {
            let e = format!("pci:{bad}").parse::<DeviceSelector>().unwrap_err().to_string();
            assert!(e.contains("0000:65:00.0 (domain") && e.contains(bad), "{bad}: {e}");
        }
    }

    #[test]
    fn pci_addresses_are_written_as_linux_writes_them() {
        for (text, want) in [("00000000:0A:1F.3", "0000:0a:1f.3"), ("10000:FF:00.0", "10000:ff:00.0")] {
            let address: PciAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), want);
            assert_eq!(want.parse::<PciAddress>().unwrap(), address);
        }
    }
}
