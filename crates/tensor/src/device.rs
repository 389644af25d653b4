//! Choosing a device.

use crate::gpu::{self, Gpu};
use crate::{Error, Result};
use core::fmt;
use std::str::FromStr;

/// Where tensors live and operations run.
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU, or a software rasteriser that stands in for one. There is none without the feature `gpu`.
    Gpu(Gpu),
}

/// What kind of device an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares memory with the CPU.
    Integrated,
    /// A GPU lent to a virtual machine.
    Virtual,
    /// A GPU of unknown kind.
    Other,
    /// A program on the CPU that behaves like a GPU (lavapipe, SwiftShader, WARP).
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

/// An adapter as the system lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterSummary {
    /// Name given by the driver.
    pub name: String,
    /// `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: &'static str,
    /// Name and version of the driver.
    pub driver: String,
    /// Its kind.
    pub kind: AdapterKind,
    /// Largest storage buffer binding in bytes.
    pub max_binding_bytes: u64,
    /// Workgroup memory in bytes.
    pub max_workgroup_bytes: u32,
    /// Lanes of a workgroup.
    pub max_workgroup_lanes: u32,
    /// Smallest and largest subgroup; 0 where unknown.
    pub subgroup: (u32, u32),
    /// Whether f16 storage is supported.
    pub f16: bool,
    /// Whether GPU time can be measured.
    pub timestamps: bool,
}

/// A request for a device, as on the command line: `auto`, `cpu`, `gpu`, `gpu:NAME`, `vulkan`,
/// `metal`, `dx12`, `gl`, or a backend with a name such as `vulkan:llvmpipe`. A name is any part of
/// the adapter's name, in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSelector {
    /// A real GPU if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU of this backend (any if `None`). Without a name a software rasteriser is refused.
    Gpu {
        /// `vulkan`, `metal`, `dx12` or `gl`.
        backend: Option<&'static str>,
        /// A part of the adapter's name.
        name: Option<String>,
    },
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
             carry a name too, as in vulkan:NAME)"
        ),
    }
}

impl Device {
    /// A real GPU if there is one, else the CPU. A software rasteriser is never picked: native CPU
    /// code is many times faster.
    ///
    /// # Errors
    /// Those of [`Self::check`]; a GPU that cannot be opened counts as none.
    pub fn best() -> Result<Self> {
        Self::open(&DeviceSelector::Auto)
    }

    /// The device that `selector` names; see [`DeviceSelector`] for the forms.
    ///
    /// # Errors
    /// [`Error::Argument`] if the text is not a selector, [`Error::NoDevice`] if nothing matches, as no GPU does
    /// without the feature `gpu`.
    pub fn by_name(selector: &str) -> Result<Self> {
        Self::open(&selector.parse()?)
    }

    /// The device that `selector` describes.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if nothing matches, naming what there is; those of [`Self::check`].
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

    /// [`Self::open`] for an executor: what has to be used in a browser, where nothing can block. On other targets
    /// drivers are loaded on the calling thread, and compile there too; only what the device itself has to
    /// run is waited for. See [`Tensor::to_vec_async`](crate::Tensor::to_vec_async) for what drives it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_async(selector: &DeviceSelector) -> Result<Self> {
        let device = match selector {
            DeviceSelector::Cpu => Self::Cpu,
            DeviceSelector::Auto => Gpu::open(None, None).await.map_or(Self::Cpu, Self::Gpu),
            DeviceSelector::Gpu { backend, name } => Gpu::open(*backend, name.as_deref()).await.map(Self::Gpu)?,
        };
        device.check()?;
        Ok(device)
    }

    /// Whether the device can be used as the environment wants it. On the CPU `RECURVE_SIMD` may name fewer
    /// vector instructions than there are (`avx512`, `avx2`, `neon`, `scalar`; empty is as unset), and a name
    /// that this processor does not know is refused. Opening a device and making a tensor check this too.
    ///
    /// # Errors
    /// [`Error::Argument`] for such a name.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Cpu => crate::cpu::check_simd(),
            Self::Gpu(_) => Ok(()),
        }
    }

    /// The CPU and every adapter that can be opened, software rasterisers included: what a
    /// cross-check compares.
    pub fn all() -> Vec<Self> {
        let mut devices = vec![Self::Cpu];
        devices.extend(gpu::block_on(Gpu::open_all()).into_iter().map(Self::Gpu));
        devices
    }

    /// What the system lists through Vulkan, Metal and DX12 (OpenGL is only looked for when a
    /// selector names `gl`). Listing opens no device. In a browser use [`Self::adapters_async`].
    pub fn adapters() -> Vec<AdapterSummary> {
        gpu::block_on(Self::adapters_async())
    }

    /// [`Self::adapters`] for an executor.
    pub async fn adapters_async() -> Vec<AdapterSummary> {
        Gpu::adapters().await
    }

    /// The GPU, if it is one.
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

    /// Gives idle memory back to the system.
    pub fn trim(&self) {
        match self {
            Self::Cpu => crate::cpu::trim(),
            Self::Gpu(g) => g.trim(),
        }
    }

    /// Buffers made on this device since it was opened (on the CPU: since the program began).
    /// Unchanged over a call means that the call allocated none.
    pub fn buffers_made(&self) -> u64 {
        match self {
            Self::Cpu => crate::cpu::buffers_made(),
            Self::Gpu(g) => g.buffers_made(),
        }
    }

    /// Waits until everything recorded so far has run.
    ///
    /// # Errors
    /// Whatever went wrong in what was recorded.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Gpu(g) => g.block_on(g.synchronize_async()),
        }
    }

    /// [`Self::synchronize`] without blocking the executor.
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
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<DeviceSelector>().unwrap(), want, "{text}");
        }
        for bad in ["", "cuda", "gpu:", "cpu:0", "auto:x", "vulkan:"] {
            let e = bad.parse::<DeviceSelector>().unwrap_err().to_string();
            assert!(e.contains("gpu:NAME"), "{bad}: {e}");
        }
    }
}
