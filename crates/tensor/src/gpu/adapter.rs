//! Listing and opening adapters.

use super::scope::Late;
use super::wait::Waiting;
use super::{Gpu, Inner, Recorder};
use crate::device::{AdapterKind, AdapterSummary, PciAddress};
use crate::pool::Pool;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// The wgpu instance for Vulkan, Metal and DX12, or the one for OpenGL. OpenGL has its own instance, used only when it
/// is asked for by name: searching for it makes drivers without a display print complaints, and its adapters are
/// reachable through the other backends with more features.
fn instance(gl: bool) -> &'static wgpu::Instance {
    static INSTANCES: [OnceLock<wgpu::Instance>; 2] = [const { OnceLock::new() }; 2];
    INSTANCES[usize::from(gl)].get_or_init(|| {
        let mut d = wgpu::InstanceDescriptor::new_without_display_handle();
        d.backends = if gl { wgpu::Backends::GL } else { wgpu::Backends::PRIMARY };
        // Validation layers are a debugging aid that may not be installed; wgpu's environment variables enable them.
        d.flags = wgpu::InstanceFlags::empty().with_env();
        wgpu::Instance::new(d)
    })
}

fn backend_name(b: wgpu::Backend) -> &'static str {
    match b {
        wgpu::Backend::Vulkan => "vulkan",
        wgpu::Backend::Metal => "metal",
        wgpu::Backend::Dx12 => "dx12",
        wgpu::Backend::Gl => "gl",
        wgpu::Backend::BrowserWebGpu => "webgpu",
        wgpu::Backend::Noop => "noop",
    }
}

fn summary(a: &wgpu::Adapter) -> AdapterSummary {
    let (info, limits, features) = (a.get_info(), a.limits(), a.features());
    let driver = match (info.driver.as_str(), info.driver_info.as_str()) {
        ("", v) | (v, "") => v.to_owned(),
        (d, v) => format!("{d} {v}"),
    };
    let software_name = ["llvmpipe", "softpipe", "swiftshader", "basic render"]
        .iter()
        .any(|s| info.name.to_ascii_lowercase().contains(s));
    AdapterSummary {
        backend: backend_name(info.backend),
        driver,
        kind: match info.device_type {
            // OpenGL drivers do not report that they are software, but their names do.
            _ if software_name => AdapterKind::Software,
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Other,
        },
        // Empty for an adapter that does not tell.
        pci: info.device_pci_bus_id.parse().ok(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_workgroup_lanes: limits.max_compute_invocations_per_workgroup,
        subgroup: (info.subgroup_min_size, info.subgroup_max_size),
        f16: features.contains(wgpu::Features::SHADER_F16),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        name: info.name,
    }
}

/// Every adapter that supports compute shaders, best first.
async fn adapters(gl: bool) -> Vec<(wgpu::Adapter, AdapterSummary)> {
    let mut all: Vec<_> = instance(gl)
        .enumerate_adapters(wgpu::Backends::all())
        .await
        .into_iter()
        .filter(|a| {
            // The kernels bind up to eight storage buffers, which WebGPU guarantees and old OpenGL does not support.
            a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
                && a.limits().max_storage_buffers_per_shader_stage >= 8
        })
        .map(|a| {
            let s = summary(&a);
            (a, s)
        })
        .collect();
    all.sort_by_key(|(_, s)| s.kind);
    all
}

/// The adapters in an error that says that another one was wanted.
fn list(all: &[(wgpu::Adapter, AdapterSummary)]) -> String {
    if all.is_empty() {
        return "there is no GPU adapter at all; on Debian, `mesa-vulkan-drivers` and `libvulkan1` give a software one"
            .to_owned();
    }
    let one = |s: &AdapterSummary| {
        let place = s.pci.map_or_else(String::new, |p| format!(", pci:{p}"));
        format!("{}:{} ({}{place})", s.backend, s.name, s.kind)
    };
    format!("available: {}", all.iter().map(|(_, s)| one(s)).collect::<Vec<_>>().join(", "))
}

impl Gpu {
    pub(crate) async fn adapters() -> Vec<AdapterSummary> {
        adapters(false).await.into_iter().map(|(_, s)| s).collect()
    }

    /// Opens every adapter; those that cannot be opened are left out.
    pub(crate) async fn open_all() -> Vec<Self> {
        let mut all = Vec::new();
        for (a, s) in adapters(false).await {
            all.extend(Self::open_adapter(&a, s).await.ok());
        }
        all
    }

    pub(crate) async fn open(backend: Option<&str>, name: Option<&str>) -> Result<Self> {
        let all = adapters(backend == Some("gl")).await;
        let wanted = name.map(str::to_ascii_lowercase);
        let found = all.iter().find(|(_, s)| {
            backend.is_none_or(|b| b == s.backend)
                && match &wanted {
                    Some(n) => s.name.to_ascii_lowercase().contains(n),
                    None => s.kind != AdapterKind::Software,
                }
        });
        if let Some((a, s)) = found {
            return Self::open_adapter(a, s.clone()).await;
        }
        let mut request = backend.unwrap_or("gpu").to_owned();
        if let Some(n) = name {
            request = format!("{request}:{n}");
        }
        let mut available = list(&all);
        if name.is_none() && all.iter().any(|(_, s)| s.kind == AdapterKind::Software) {
            available.push_str("; a software adapter is only used when its name is given");
        }
        Err(Error::NoDevice { wanted: request, available })
    }

    /// Opens the adapter at a place of the PCI bus: Vulkan's or Metal's before DX12's, as a GPU may be there through several.
    pub(crate) async fn open_at(address: PciAddress) -> Result<Self> {
        let all = adapters(false).await;
        match all.iter().filter(|(_, s)| s.pci == Some(address)).min_by_key(|(_, s)| s.backend == "dx12") {
            Some((a, s)) => Self::open_adapter(a, s.clone()).await,
            None => Err(Error::NoDevice { wanted: format!("pci:{address}"), available: list(&all) }),
        }
    }

    async fn open_adapter(adapter: &wgpu::Adapter, summary: AdapterSummary) -> Result<Self> {
        let useful = wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP;
        let features = adapter.features() & useful;
        let limits = adapter.limits();
        let opened = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("recurve"),
            required_features: features,
            // A device has exactly the limits that are requested; the defaults are far below those of most adapters.
            required_limits: limits.clone(),
            ..Default::default()
        });
        let (device, queue) = opened.await.map_err(|e| Error::NoDevice {
            wanted: summary.name.clone(),
            available: format!("it is there but could not be opened: {e}"),
        })?;

        let waiting = Arc::new(Waiting::new());
        device.set_device_lost_callback({
            let waiting = waiting.clone();
            move |reason, message| waiting.lose(format!("{reason:?}: {message}"))
        });
        let uncaptured = Arc::new(Mutex::new(None));
        device.on_uncaptured_error({
            let uncaptured = uncaptured.clone();
            Arc::new(move |e: wgpu::Error| *super::lock(&uncaptured) = Some(e.to_string()))
        });
        let max_work = match summary.kind {
            AdapterKind::Software => 1 << 29,
            AdapterKind::Discrete => 1 << 36,
            _ => 1 << 32,
        };
        let software = AtomicBool::new(summary.kind == AdapterKind::Software);
        let recorder = Recorder::new(&device, &queue, &limits, features);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let gpu = Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            device,
            queue,
            limits,
            features,
            summary,
            waiting,
            late: Late::default(),
            uncaptured,
            pipelines: Mutex::new(HashMap::new()),
            recorder: Mutex::new(recorder),
            staging: Mutex::new(Pool::new()),
            max_loop_iterations: AtomicU32::new(u32::MAX),
            ended_loops: AtomicU32::new(0),
            max_work: AtomicU64::new(max_work),
            memory_limit: AtomicU64::new(u64::MAX),
            neighbour_sums: AtomicBool::new(false),
            software,
            concurrent_workgroups: AtomicU32::new(0),
            epoch: AtomicU64::new(0),
        }));
        gpu.probe().await?;
        Ok(gpu)
    }
}
