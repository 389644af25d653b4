//! The type `Tensor`: elements on a device, with a shape.

use crate::cpu::{self, CpuBuffer, SharedFloats, host};
use crate::gpu::{Gpu, GpuBuffer};
use crate::waiting::{self, Elements};
use crate::{DType, Device, Error, Result, Shape};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::fmt;
use std::sync::Arc;

/// Elements on a device, row-major, with a shape. A tensor never changes: operations make new tensors. Clones share the
/// elements.
///
/// `+`, `-`, `*` and `/`, between tensors and with an `f32` on either side, are the methods [`Self::add`],
/// [`Self::sub`], [`Self::mul`] and [`Self::div`]. They return a [`Result`], because shapes may not match and a device
/// may run out of memory.
/// ```
/// use recurve_tensor::{Device, Tensor};
/// let a = Tensor::from_f32(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &Device::Cpu)?;
/// let b = Tensor::from_f32(&[10.0, 20.0], &[2], &Device::Cpu)?;
/// let y = (((&a + &b)? * 0.5)? - 1.0)?;
/// assert_eq!(y.to_vec()?, [4.5, 10.0, 5.5, 11.0]);
/// # Ok::<(), recurve_tensor::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    dtype: DType,
    storage: Storage,
    /// For U32: an upper bound of the elements. It is stored on the host, so that look-ups by id can be checked without
    /// reading the ids back.
    bound: u32,
}

#[derive(Clone)]
enum Storage {
    Cpu(Arc<CpuBuffer>),
    Gpu(Gpu, Arc<GpuBuffer>),
}

impl Tensor {
    /// A tensor of these f32 elements.
    ///
    /// # Errors
    /// [`Error::Argument`] if `dims` does not match the length of `data` or contains a zero; those of
    /// [`Device::check`]; [`Error::TooLarge`], [`Error::OutOfMemory`] and [`Error::DeviceLost`] from the device.
    pub fn from_f32(data: &[f32], dims: &[usize], device: &Device) -> Result<Self> {
        device.check()?;
        let shape = shape_of("Tensor::from_f32", dims, data.len())?;
        match device {
            Device::Cpu => Self::cpu_write(shape, |out| {
                out.copy_from_slice(data);
                Ok(())
            }),
            Device::Gpu(gpu) => Self::gpu_upload(gpu, bytemuck::cast_slice(data), shape, DType::F32, 0),
        }
    }

    /// A tensor on the CPU over f32 elements in memory that `owner` has: nothing is copied. The tensor and its clones
    /// hold the owner; [`Self::is_shared`] tells them from others, and [`Self::into_owned`] copies them. What is in the
    /// memory must not change while a tensor has it.
    /// ```
    /// use recurve_tensor::Tensor;
    /// use std::sync::Arc;
    /// let owner = Arc::new(vec![1.0, 2.0]);
    /// let t = Tensor::from_shared(owner.clone(), &[1, 2])?;
    /// assert_eq!(t.cpu_f32().unwrap().as_ptr(), owner.as_ptr());
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if `dims` does not match the number of elements or contains a zero; those of
    /// [`Device::check`].
    pub fn from_shared(owner: Arc<dyn AsRef<[f32]> + Send + Sync>, dims: &[usize]) -> Result<Self> {
        Device::Cpu.check()?;
        let count = (*owner).as_ref().len();
        let shape = shape_of("Tensor::from_shared", dims, count)?;
        let storage = Storage::Cpu(Arc::new(CpuBuffer::Shared(SharedFloats { owner, count })));
        Ok(Self { shape, dtype: DType::F32, storage, bound: 0 })
    }

    /// Whether the elements are in memory of somebody else's, as those of [`Self::from_shared`] are.
    pub fn is_shared(&self) -> bool {
        matches!(&self.storage, Storage::Cpu(b) if matches!(**b, CpuBuffer::Shared(_)))
    }

    /// This tensor with its elements in memory of its own: itself, unless it is shared.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn into_owned(self) -> Result<Self> {
        if !self.is_shared() {
            return Ok(self);
        }
        Self::from_f32(self.cpu_f32().expect("f32 elements on the CPU"), self.dims(), &Device::Cpu)
    }

    /// A tensor of these f16 elements.
    ///
    /// # Errors
    /// As [`Self::from_f32`]; [`Error::Unsupported`] if the adapter has no f16.
    pub fn from_f16(data: &[f16], dims: &[usize], device: &Device) -> Result<Self> {
        device.check()?;
        let shape = shape_of("Tensor::from_f16", dims, data.len())?;
        check_f16(device, "Tensor::from_f16")?;
        match device {
            Device::Cpu => Self::cpu_f16_write(shape, |out| out.copy_from_slice(data)),
            Device::Gpu(gpu) => Self::gpu_upload(gpu, bytemuck::cast_slice(data), shape, DType::F16, 0),
        }
    }

    /// An f32 tensor with the values of these bf16 elements; every bf16 is exactly representable as f32.
    /// ```
    /// use recurve_tensor::{DType, Device, Tensor, bf16};
    /// let t = Tensor::from_bf16(&[bf16::from_f32(1.5), bf16::NEG_INFINITY], &[2], &Device::Cpu)?;
    /// assert_eq!((t.dtype(), t.to_vec()?), (DType::F32, vec![1.5, f32::NEG_INFINITY]));
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::from_f32`].
    pub fn from_bf16(data: &[bf16], dims: &[usize], device: &Device) -> Result<Self> {
        const OPERATION: &str = "Tensor::from_bf16";
        device.check()?;
        let shape = shape_of(OPERATION, dims, data.len())?;
        match device {
            Device::Cpu => Self::cpu_write(shape, |out| {
                data.convert_to_f32_slice(out);
                Ok(())
            }),
            Device::Gpu(gpu) => {
                let mut wide: Vec<f32> = host(OPERATION, data.len())?;
                data.convert_to_f32_slice(&mut wide);
                Self::gpu_upload(gpu, bytemuck::cast_slice(&wide), shape, DType::F32, 0)
            }
        }
    }

    /// A U32 tensor of these indices, which other libraries store as i64.
    /// ```
    /// use recurve_tensor::{DType, Device, Error, Tensor};
    /// let t = Tensor::from_i64(&[3, 0, 4_294_967_295], &[3], &Device::Cpu)?;
    /// assert_eq!((t.dtype(), t.to_vec_i64()?), (DType::U32, vec![3, 0, 4_294_967_295]));
    /// let e = Tensor::from_i64(&[3, -1], &[2], &Device::Cpu).unwrap_err();
    /// assert!(matches!(e, Error::Range { got: -1, index: 1, .. }));
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::from_f32`]; [`Error::Range`] for the first number below 0 or above `u32::MAX`.
    pub fn from_i64(data: &[i64], dims: &[usize], device: &Device) -> Result<Self> {
        const OPERATION: &str = "Tensor::from_i64";
        device.check()?;
        shape_of(OPERATION, dims, data.len())?;
        let mut narrow: Vec<u32> = host(OPERATION, data.len())?;
        for (index, (out, &got)) in narrow.iter_mut().zip(data).enumerate() {
            *out = u32::try_from(got).map_err(|_| Error::Range {
                operation: OPERATION,
                argument: "data",
                expected: "0 to 4294967295",
                got,
                index,
            })?;
        }
        Self::from_u32(&narrow, dims, device)
    }

    /// A tensor of these indices: token ids, lengths.
    ///
    /// # Errors
    /// As [`Self::from_f32`].
    pub fn from_u32(data: &[u32], dims: &[usize], device: &Device) -> Result<Self> {
        device.check()?;
        let shape = shape_of("Tensor::from_u32", dims, data.len())?;
        let bound = data.iter().copied().max().unwrap_or(0);
        match device {
            Device::Cpu => Self::cpu_u32_write(shape, bound, |out| out.copy_from_slice(data)),
            Device::Gpu(gpu) => Self::gpu_upload(gpu, bytemuck::cast_slice(data), shape, DType::U32, bound),
        }
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// As [`Self::from_f32`].
    pub fn zeros(dims: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        Self::full(dims, 0.0, dtype, device)
    }

    /// A tensor whose elements all have this value. For U32 the value is rounded towards zero.
    ///
    /// # Errors
    /// As [`Self::from_f32`]; [`Error::Argument`] for U32 if the rounded value is outside the range of U32.
    pub fn full(dims: &[usize], value: f32, dtype: DType, device: &Device) -> Result<Self> {
        device.check()?;
        let shape = Shape::checked("Tensor::full", dims)?;
        if dtype == DType::U32 {
            check_u32("Tensor::full", value)?;
        }
        if dtype == DType::F16 {
            check_f16(device, "Tensor::full")?;
        }
        match device {
            Device::Cpu => match dtype {
                DType::F32 => Self::cpu_write(shape, |out| {
                    out.fill(value);
                    Ok(())
                }),
                DType::F16 => Self::cpu_f16_write(shape, |out| out.fill(f16::from_f32(value))),
                DType::U32 => Self::cpu_u32_write(shape, value as u32, |out| out.fill(value as u32)),
            },
            Device::Gpu(gpu) => Ok(gpu.fill(shape, value, dtype)?.with_bound(value as u32)),
        }
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device that stores it.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Cpu(_) => Device::Cpu,
            Storage::Gpu(g, _) => Device::Gpu(g.clone()),
        }
    }

    /// The elements as f32; f16 is converted. If they are on a GPU, they are read back.
    ///
    /// # Errors
    /// [`Error::DType`] for U32; on a GPU errors of the recorded commands.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        let mut out = host("Tensor::to_vec", self.shape.count())?;
        self.read_into(&mut out)?;
        Ok(out)
    }

    /// [`Self::to_vec`] as a future.
    ///
    /// Any executor can run it. On native targets a thread must poll the device: blocking calls do that themselves, and
    /// for other executors a thread runs while a future waits. In a browser no thread is needed. Dropping the future
    /// leaves the device as it was; the recorded commands still run.
    /// # Errors
    /// As [`Self::to_vec`].
    pub async fn to_vec_async(&self) -> Result<Vec<f32>> {
        let mut out = host("Tensor::to_vec", self.shape.count())?;
        self.read_into_async(&mut out).await?;
        Ok(out)
    }

    /// [`Self::to_vec`] into existing memory.
    ///
    /// # Errors
    /// As [`Self::to_vec`]; [`Error::Argument`] if `out` has another length.
    pub fn read_into(&self, out: &mut [f32]) -> Result<()> {
        self.check_read(out.len())?;
        match self.read_before(|elements| {
            if let Elements::Float(v) = elements {
                out.copy_from_slice(v);
            }
        }) {
            Some(done) => done,
            None => self.block_on(self.read_into_async(out)),
        }
    }

    /// [`Self::read_into`] as a future; see [`Self::to_vec_async`].
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub async fn read_into_async(&self, out: &mut [f32]) -> Result<()> {
        self.check_read(out.len())?;
        match &self.storage {
            Storage::Cpu(b) => {
                read_cpu(b, out);
                Ok(())
            }
            Storage::Gpu(g, b) if self.dtype == DType::F16 => {
                let mut half: Vec<f16> = host("Tensor::to_vec", out.len())?;
                g.read_async([(b, bytemuck::cast_slice_mut(&mut half))]).await?;
                half.convert_to_f32_slice(out);
                Ok(())
            }
            Storage::Gpu(g, b) => g.read_async([(b, bytemuck::cast_slice_mut(out))]).await,
        }
    }

    /// [`Self::read_into`] for several tensors; tensors of one GPU are read in one submission.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn read_many<const N: usize>(reads: [(&Self, &mut [f32]); N]) -> Result<()> {
        let mut tensors = reads.iter().map(|(t, _)| *t);
        match tensors.clone().find(|t| matches!(t.storage, Storage::Gpu(..))).or_else(|| tensors.next()) {
            Some(t) if t.waits() => reads.into_iter().try_for_each(|(t, out)| t.read_into(out)),
            Some(t) => t.block_on(Self::read_many_async(reads)),
            None => Ok(()),
        }
    }

    /// [`Self::read_many`] as a future; see [`Self::to_vec_async`].
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub async fn read_many_async<const N: usize>(reads: [(&Self, &mut [f32]); N]) -> Result<()> {
        for (t, out) in &reads {
            t.check_read(out.len())?;
        }
        let one = reads.first().and_then(|(t, _)| t.device().gpu().cloned());
        let together = |g: &Gpu| {
            reads.iter().all(|(t, _)| t.dtype == DType::F32 && matches!(&t.storage, Storage::Gpu(h, _) if h.same(g)))
        };
        match one {
            Some(gpu) if together(&gpu) => {
                gpu.read_async(reads.map(|(t, out)| (&**t.gpu_buffer(), bytemuck::cast_slice_mut(out)))).await
            }
            _ => {
                for (t, out) in reads {
                    t.read_into_async(out).await?;
                }
                Ok(())
            }
        }
    }

    /// What has been read of this tensor before, if the call that runs must not block ([`crate::without_blocking`]).
    fn read_before<T>(&self, take: impl FnOnce(&Elements) -> T) -> Option<Result<T>> {
        match &self.storage {
            Storage::Cpu(_) => None,
            Storage::Gpu(..) => waiting::read(self, take),
        }
    }

    /// Whether reading this tensor has to wait, in a call that must not block.
    fn waits(&self) -> bool {
        matches!(self.storage, Storage::Gpu(..)) && waiting::is_running()
    }

    /// Runs a future that reads this tensor, blocking if the tensor is on a GPU.
    fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.storage {
            Storage::Gpu(g, _) => g.block_on(future),
            Storage::Cpu(_) => cpu::ready(future),
        }
    }

    fn check_read(&self, len: usize) -> Result<()> {
        if !self.dtype.is_float() {
            return Err(Error::DType {
                operation: "Tensor::to_vec",
                argument: "self",
                expected: "f32 or f16 (use to_vec_u32)",
                got: self.dtype,
            });
        }
        if len != self.shape.count() {
            return Err(Error::Argument {
                operation: "Tensor::read_into",
                argument: "out",
                message: format!("has {len} elements, but the tensor has {}", self.shape.count()),
            });
        }
        Ok(())
    }

    /// The elements of a U32 tensor.
    ///
    /// # Errors
    /// [`Error::DType`] unless it is U32; on a GPU errors of the recorded commands.
    pub fn to_vec_u32(&self) -> Result<Vec<u32>> {
        self.check_dtype("Tensor::to_vec_u32", "self", "u32", self.dtype == DType::U32)?;
        let read = self.read_before(|elements| match elements {
            Elements::Whole(v) => v.clone(),
            Elements::Float(_) => Vec::new(),
        });
        match read {
            Some(done) => done,
            None => self.block_on(self.to_vec_u32_async()),
        }
    }

    /// [`Self::to_vec_u32`] as a future; see [`Self::to_vec_async`].
    ///
    /// # Errors
    /// As [`Self::to_vec_u32`].
    pub async fn to_vec_u32_async(&self) -> Result<Vec<u32>> {
        self.check_dtype("Tensor::to_vec_u32", "self", "u32", self.dtype == DType::U32)?;
        match &self.storage {
            Storage::Cpu(b) => match &**b {
                CpuBuffer::U32(v) => {
                    let mut out = host("Tensor::to_vec_u32", v.len())?;
                    out.copy_from_slice(v);
                    Ok(out)
                }
                _ => unreachable!("a U32 tensor has U32 storage"),
            },
            Storage::Gpu(g, b) => {
                let mut out: Vec<u32> = host("Tensor::to_vec_u32", self.shape.count())?;
                g.read_async([(b, bytemuck::cast_slice_mut(&mut out))]).await?;
                Ok(out)
            }
        }
    }

    /// The elements rounded to bf16, ties to even; values beyond the largest bf16 become infinite.
    /// ```
    /// use recurve_tensor::{Device, Tensor, bf16};
    /// let t = Tensor::from_f32(&[1.0, 1.0 + 1.0 / 256.0], &[2], &Device::Cpu)?;
    /// assert_eq!(t.to_vec_bf16()?, [bf16::ONE, bf16::ONE]);
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::to_vec`].
    pub fn to_vec_bf16(&self) -> Result<Vec<bf16>> {
        let wide = self.to_vec()?;
        let mut out = host("Tensor::to_vec_bf16", wide.len())?;
        out.convert_from_f32_slice(&wide);
        Ok(out)
    }

    /// The elements of a U32 tensor as i64.
    ///
    /// # Errors
    /// As [`Self::to_vec_u32`].
    pub fn to_vec_i64(&self) -> Result<Vec<i64>> {
        let narrow = self.to_vec_u32()?;
        let mut out = host("Tensor::to_vec_i64", narrow.len())?;
        out.iter_mut().zip(narrow).for_each(|(out, v)| *out = v.into());
        Ok(out)
    }

    /// The same elements on another device. Returns the same tensor if it is on that device already.
    ///
    /// # Errors
    /// As [`Self::to_vec`] and [`Self::from_f32`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device() == *device {
            return Ok(self.clone());
        }
        match self.dtype {
            DType::F32 => Self::from_f32(&self.to_vec()?, self.dims(), device),
            DType::U32 => Self::from_u32(&self.to_vec_u32()?, self.dims(), device),
            DType::F16 => {
                let wide = self.to_vec()?;
                let mut half: Vec<f16> = host("Tensor::to_device", wide.len())?;
                half.convert_from_f32_slice(&wide);
                Self::from_f16(&half, self.dims(), device)
            }
        }
    }

    /// The same elements with another shape. Nothing is copied.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        match Shape::new(dims) {
            Some(shape) if shape.count() == self.shape.count() => Ok(Self { shape, ..self.clone() }),
            _ => Err(Error::shape("reshape", "self", format!("as many elements as {dims:?}"), &self.shape)),
        }
    }

    /// [`Self::reshape`] of a tensor that is not needed otherwise: no other one of the same elements is left.
    ///
    /// # Errors
    /// As [`Self::reshape`].
    pub fn into_shape(self, dims: &[usize]) -> Result<Self> {
        match Shape::new(dims) {
            Some(shape) if shape.count() == self.shape.count() => Ok(Self { shape, ..self }),
            _ => Err(Error::shape("reshape", "self", format!("as many elements as {dims:?}"), &self.shape)),
        }
    }

    pub(crate) fn check_dtype(
        &self,
        operation: &'static str,
        argument: &'static str,
        expected: &'static str,
        ok: bool,
    ) -> Result<()> {
        if ok { Ok(()) } else { Err(Error::DType { operation, argument, expected, got: self.dtype }) }
    }

    /// Checks that `other` is on the same device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn check_same_device(&self, other: &Self, operation: &'static str, argument: &'static str) -> Result<()> {
        if self.device() == other.device() {
            return Ok(());
        }
        Err(Error::device(operation, argument, &self.device(), &other.device()))
    }

    /// For U32: an upper bound of the elements, known without reading them back.
    pub fn bound(&self) -> u32 {
        self.bound
    }

    /// Sets the bound. The caller must know that no element is larger.
    pub(crate) fn with_bound(mut self, bound: u32) -> Self {
        self.bound = bound;
        self
    }

    /// The f32 elements, if they are in host memory.
    pub fn cpu_f32(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::Cpu(b) => match &**b {
                CpuBuffer::F32(v) => Some(v),
                CpuBuffer::Shared(s) => Some(s.elements()),
                _ => None,
            },
            Storage::Gpu(..) => None,
        }
    }

    /// The u32 elements, if they are in host memory.
    pub fn cpu_u32(&self) -> Option<&[u32]> {
        match &self.storage {
            Storage::Cpu(b) => match &**b {
                CpuBuffer::U32(v) => Some(v),
                _ => None,
            },
            Storage::Gpu(..) => None,
        }
    }

    /// See [`crate::kernel::TensorKernels`].
    pub(crate) fn gpu_buffer(&self) -> &Arc<GpuBuffer> {
        match &self.storage {
            Storage::Gpu(_, b) => b,
            Storage::Cpu(_) => panic!("the tensor is on the CPU"),
        }
    }

    /// See [`crate::kernel::TensorKernels`].
    pub(crate) fn cpu_write(shape: Shape, write: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self> {
        let (b, result) = cpu::make(DType::F32, shape.count(), |b| match b {
            CpuBuffer::F32(v) => write(v),
            _ => unreachable!("the pool gives what was asked for"),
        })?;
        result?;
        Ok(Self { shape, dtype: DType::F32, storage: Storage::Cpu(b), bound: 0 })
    }

    /// An f32 tensor on the CPU with elements changed: this one, if no other tensor has the same memory, else a copy.
    pub(crate) fn cpu_update(self, change: impl FnOnce(&mut [f32])) -> Result<Self> {
        if self.is_shared() {
            return self.into_owned()?.cpu_update(change);
        }
        let Storage::Cpu(buffer) = self.storage else { unreachable!("checked to be on the CPU") };
        let floats = |b: &mut CpuBuffer, change: &mut dyn FnMut(&mut [f32])| match b {
            CpuBuffer::F32(v) => change(v),
            _ => unreachable!("checked to be f32"),
        };
        let mut change = Some(change);
        let mut once = |v: &mut [f32]| change.take().expect("called once")(v);
        let buffer = match cpu::update(buffer, (DType::F32, self.shape.count()), |b| floats(b, &mut once)) {
            Ok(changed) => changed,
            Err(shared) => {
                let CpuBuffer::F32(old) = &*shared else { unreachable!("checked to be f32") };
                return Self::cpu_write(self.shape, |out| {
                    out.copy_from_slice(old);
                    once(out);
                    Ok(())
                });
            }
        };
        Ok(Self { storage: Storage::Cpu(buffer), ..self })
    }

    pub(crate) fn cpu_f16_write(shape: Shape, write: impl FnOnce(&mut [f16])) -> Result<Self> {
        let (b, ()) = cpu::make(DType::F16, shape.count(), |b| match b {
            CpuBuffer::F16(v) => write(v),
            _ => unreachable!("the pool gives what was asked for"),
        })?;
        Ok(Self { shape, dtype: DType::F16, storage: Storage::Cpu(b), bound: 0 })
    }

    /// A U32 tensor on the CPU. `write` must set every element to at most `bound`.
    pub(crate) fn cpu_u32_write(shape: Shape, bound: u32, write: impl FnOnce(&mut [u32])) -> Result<Self> {
        let (b, ()) = cpu::make(DType::U32, shape.count(), |b| match b {
            CpuBuffer::U32(v) => write(v),
            _ => unreachable!("the pool gives what was asked for"),
        })?;
        Ok(Self { shape, dtype: DType::U32, storage: Storage::Cpu(b), bound })
    }

    /// See [`crate::kernel::TensorKernels`].
    pub(crate) fn gpu_uninit(gpu: &Gpu, shape: Shape, dtype: DType, operation: &'static str) -> Result<Self> {
        let bytes = shape.count() as u64 * dtype.size() as u64;
        let b = gpu.buffer(bytes, operation)?;
        Ok(Self { shape, dtype, storage: Storage::Gpu(gpu.clone(), b), bound: unknown_bound(dtype) })
    }

    /// See [`crate::kernel::TensorKernels`].
    pub(crate) fn reinterpreted(self, dtype: DType) -> Result<Self> {
        let same = dtype.size() == self.dtype.size() && matches!(self.storage, Storage::Gpu(..));
        self.check_dtype("reinterpreted", "self", "of the same size, on a GPU", same)?;
        Ok(Self { dtype, bound: unknown_bound(dtype), ..self })
    }

    fn gpu_upload(gpu: &Gpu, bytes: &[u8], shape: Shape, dtype: DType, bound: u32) -> Result<Self> {
        let b = gpu.upload(bytes, "upload")?;
        Ok(Self { shape, dtype, storage: Storage::Gpu(gpu.clone(), b), bound })
    }
}

fn read_cpu(b: &CpuBuffer, out: &mut [f32]) {
    match b {
        CpuBuffer::F32(v) => out.copy_from_slice(v),
        CpuBuffer::Shared(s) => out.copy_from_slice(s.elements()),
        CpuBuffer::F16(v) => v.convert_to_f32_slice(out),
        CpuBuffer::U32(_) => unreachable!("checked to be a float"),
    }
}

/// The bound of elements of which nothing is known.
fn unknown_bound(dtype: DType) -> u32 {
    if dtype == DType::U32 { u32::MAX } else { 0 }
}

/// Checks that a number, rounded towards zero, is in the range of U32.
pub(crate) fn check_u32(operation: &'static str, value: f32) -> Result<()> {
    if value > -1.0 && value < 4_294_967_296.0 {
        return Ok(());
    }
    let message = format!("must be at least 0 and below 2^32 for u32, but it is {value}");
    Err(Error::Argument { operation, argument: "value", message })
}

/// The shape `dims`, which must have `count` elements.
fn shape_of(operation: &'static str, dims: &[usize], count: usize) -> Result<Shape> {
    let shape = Shape::checked(operation, dims)?;
    if shape.count() == count {
        return Ok(shape);
    }
    let message = format!("{dims:?} has {} elements, but the data has {count}", shape.count());
    Err(Error::Argument { operation, argument: "dims", message })
}

pub(crate) fn check_f16(device: &Device, operation: &'static str) -> Result<()> {
    match device.gpu() {
        Some(g) if !g.has_f16() => {
            Err(Error::Unsupported { operation, feature: "f16 storage (SHADER_F16)", device: g.summary().name.clone() })
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor {} {} on {}", self.dtype, self.shape, self.device())
    }
}
