//! Compute pipelines, one per variant of a kernel.

use super::{Gpu, lock};
use crate::{Error, Result};
use recurve_shaders::{BindingKind, Bounds, ReflectError, Target, Variant, reflect};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A compiled kernel.
#[derive(Debug)]
pub struct Pipeline {
    /// Identifies the pipeline in the cache of bind groups.
    pub(crate) id: u32,
    /// The id of the device for which it was compiled.
    pub(crate) device: u64,
    /// How far a dispatch reaches into each buffer.
    pub(crate) bounds: Bounds,
    pub(crate) stem: &'static str,
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// Size of the parameter struct, in bytes.
    pub(crate) params_size: u32,
    /// For each buffer, in order of binding, whether the kernel writes it.
    pub(crate) writes: Vec<bool>,
    /// Number of dispatches recorded.
    pub(crate) recorded: AtomicU64,
}

impl Gpu {
    /// See [`crate::kernel::GpuKernels`].
    pub(crate) fn pipeline(&self, variant: &Variant) -> Result<Arc<Pipeline>> {
        if let Some(p) = lock(&self.inner().pipelines).get(variant) {
            return Ok(p.clone());
        }
        self.check_alive()?;
        let made = Arc::new(self.compile(variant)?);
        // If another thread compiled the same variant meanwhile, both use the pipeline that was stored first.
        Ok(lock(&self.inner().pipelines).entry(variant.clone()).or_insert(made).clone())
    }

    /// The number of dispatches recorded since the device was opened, by kernel: the stem of the kernel's file such as
    /// `matmul`, with the name of the cell in front where the kernel has one, such as `lstm_scan`. Kernels that were
    /// compiled but not dispatched have 0.
    pub fn dispatches_by_kernel(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for p in lock(&self.inner().pipelines).values() {
            *all.entry(p.stem).or_default() += p.recorded.load(Ordering::Relaxed);
        }
        all
    }

    fn compile(&self, variant: &Variant) -> Result<Pipeline> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let stem = variant.name();
        let gpu_error = |message: String| Error::Gpu { operation: stem, message };
        let composed = match self.inner().ended_loops.load(Ordering::Relaxed) {
            0 => variant.compose(),
            limit => variant.compose_ending_loops(limit),
        };
        let composed = composed.map_err(|e| gpu_error(e.to_string()))?;
        let reflection = reflect(&composed.source).map_err(|e| match e {
            // Report the line in the shader's source file, not in the composed module.
            ReflectError::Parse { line, message } => match composed.lines.get(line.saturating_sub(1) as usize) {
                Some(at) => gpu_error(format!("{}.wgsl:{}: {message}", at.file, at.line)),
                None => gpu_error(message),
            },
            other => gpu_error(other.to_string()),
        })?;
        let unsupported =
            |feature| Error::Unsupported { operation: stem, feature, device: self.summary().name.clone() };
        if reflection.workgroup_bytes > self.max_workgroup_bytes() {
            return Err(unsupported("this much workgroup memory"));
        }
        if reflection.workgroup_size[0] > self.max_workgroup_lanes() {
            return Err(unsupported("workgroups of this many lanes"));
        }

        if composed.subgroups && !self.inner().features.contains(wgpu::Features::SUBGROUP) {
            return Err(unsupported("subgroup functions"));
        }

        // A browser parses WGSL itself and requires `enable` directives that naga does not need.
        let target = if self.summary().backend == "webgpu" { Target::Browser } else { Target::Naga };
        let device = &self.inner().device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(stem),
            source: wgpu::ShaderSource::Wgsl(composed.wgsl(target).into_owned().into()),
        };
        // SAFETY: no kernel may index outside its memory or loop without end.
        //
        // Buffers: `Gpu::record` is the only way to run a kernel. For every kernel, `Bounds` (`reach.rs` beside the
        // kernels) computes from parameters, constants and workgroups how far a dispatch reaches into each buffer, and
        // `record` refuses the dispatch if that is past the end. Every index is a sum of products of these quantities:
        // lanes and workgroups, which are compared with a size or clamped to it, timesteps inside the sequence and
        // inside its projected chunk, and strides. Only these indices are data: `gather` clamps an id to the rows of
        // the table, `reduce` clamps an index from an earlier pass to the axis, `take` and `scatter` use an index only
        // if it is below the size of its axis, and `top_k` writes only at ranks below k. Buffers are shorter than
        // 4 GiB, so no index inside one overflows 32 bits.
        //
        // Workgroup memory and arrays of a lane: their indices are computed from constants. A `Variant` can only have
        // constants that fit its layout, which `Scan`, `Grid`, `Step` and `General` assert.
        //
        // Loops: each counts up to a constant or a parameter, by steps that cannot overflow, because all sizes are
        // below the length of a buffer; `record` refuses sizes of zero where a kernel subtracts one from the size or
        // divides by it. Loops that wait have a limit on their iterations too.
        let module = unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let entries: Vec<_> = reflection
            .bindings
            .iter()
            .map(|b| wgpu::BindGroupLayoutEntry {
                binding: b.index,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match b.kind {
                        BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
                        BindingKind::ReadOnly => wgpu::BufferBindingType::Storage { read_only: true },
                        BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: b.kind == BindingKind::Uniform,
                    min_binding_size: wgpu::BufferSize::new(b.size.into()),
                },
                count: None,
            })
            .collect();
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(stem), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(stem),
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(stem),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes its workgroup memory before reading it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        for scope in [internal, scope] {
            if let Some(e) = self.caught(stem, scope) {
                return Err(gpu_error(e.to_string()));
            }
        }
        Ok(Pipeline {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            device: self.inner().id,
            bounds: variant.bounds(),
            stem,
            pipeline,
            layout,
            params_size: reflection.bindings[0].size,
            writes: reflection.bindings[1..].iter().map(|b| b.kind == BindingKind::ReadWrite).collect(),
            recorded: AtomicU64::new(0),
        })
    }
}
