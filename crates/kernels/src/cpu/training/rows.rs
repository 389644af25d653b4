//! Inputs that are rows of a table. Many timesteps read the same row, so that what is computed from a row alone, the
//! input product and its gradients, is computed once for each row and not for each timestep.

use super::super::pack::Line;
use super::products::{ROWS, Table};
use super::{Valid, elements, floats, general};
use crate::training::TrainingCall;
use pulp::{Simd, WithSimd};
use recurve_tensor::cpu::threads::prelude::*;
use recurve_tensor::cpu::{host, simd_arch, threads_for};
use recurve_tensor::kernel::TensorKernels;
use recurve_tensor::{Result, Tensor};

/// The rows of the table that the valid timesteps of a call read, without repetition, in the order in which time and
/// then batch come to them. If they read none, one row of zeros takes part in what is computed.
pub(super) struct Rows<'a> {
    table: &'a Tensor,
    rows: Vec<u32>,
    /// For each timestep and batch row, `[T, B]`, which of the rows it reads. 0 where it is not valid.
    pub(super) places: Vec<u32>,
}

impl<'a> Rows<'a> {
    /// None if the input is not a table.
    pub(super) fn new(call: &TrainingCall<'a>) -> Result<Option<Self>> {
        const NONE: u32 = u32::MAX;
        let Some(ids) = call.ids else { return Ok(None) };
        let ids = ids.cpu_u32().expect("checked to be u32 on the CPU");
        let (b, t, valid) = (call.batch, call.timesteps, Valid::new(call));
        let mut known = host("TrainingLayer", call.x.dims()[0])?;
        known.fill(NONE);
        let mut places = host("TrainingLayer", t * b)?;
        let mut rows: Vec<u32> = host("TrainingLayer", t * b)?;
        rows.clear();
        for (n, place) in places.iter_mut().enumerate() {
            let (time, row) = (n / b, n % b);
            if !valid.at(row, time) {
                continue;
            }
            let id = ids[if call.time_major { n } else { row * t + time }];
            let known = &mut known[id as usize];
            if *known == NONE {
                *known = rows.len() as u32;
                rows.push(id);
            }
            *place = *known;
        }
        Ok(Some(Self { table: call.x, rows, places }))
    }

    pub(super) fn count(&self) -> usize {
        self.rows.len().max(1)
    }

    /// The rows, one after the other.
    pub(super) fn gather<'m>(&self, memory: &'m mut Vec<Line>) -> Result<&'m [f32]> {
        let (table, width) = (elements(Some(self.table)), self.table.dims()[1]);
        let out = floats(memory, self.count() * width)?;
        if self.rows.is_empty() {
            out.fill(0.0);
        }
        for (out, &row) in out.chunks_exact_mut(width).zip(&self.rows) {
            out.copy_from_slice(&table[row as usize * width..][..width]);
        }
        Ok(out)
    }

    /// A table of the same shape that has these rows, and zeros elsewhere.
    pub(super) fn scatter(&self, from: &[f32]) -> Result<Tensor> {
        let width = self.table.dims()[1];
        Tensor::cpu_write(*self.table.shape(), |out| {
            out.fill(0.0);
            for (from, &row) in from.chunks_exact(width).zip(&self.rows) {
                out[row as usize * width..][..width].copy_from_slice(from);
            }
            Ok(())
        })
    }

    /// The timesteps that read each row, in order.
    pub(super) fn readers(&self, valid: Valid<'_>, batch: usize) -> Result<Readers> {
        let mut ends = host("TrainingLayer", self.count() + 1)?;
        let is_valid = |n: usize| valid.at(n % batch, n / batch);
        for (n, &place) in self.places.iter().enumerate() {
            ends[place as usize + 1] += u32::from(is_valid(n));
        }
        for n in 1..ends.len() {
            ends[n] += ends[n - 1];
        }
        let mut readers = host("TrainingLayer", ends[self.count()] as usize)?;
        let mut next: Vec<u32> = host("TrainingLayer", self.count())?;
        next.copy_from_slice(&ends[..self.count()]);
        for (n, &place) in self.places.iter().enumerate().filter(|(n, _)| is_valid(*n)) {
            let next = &mut next[place as usize];
            readers[*next as usize] = n as u32;
            *next += 1;
        }
        Ok(Readers { readers, ends })
    }
}

/// Which timesteps read each of some rows.
pub(super) struct Readers {
    readers: Vec<u32>,
    /// Where those of a row begin, and at last how many there are.
    ends: Vec<u32>,
}

impl Readers {
    /// For each row the sum over its timesteps, always in the same order: `out` is `[rows, width of a]`.
    pub(super) fn sums(&self, a: Table<'_>, out: &mut [f32]) {
        /// Rows of a task.
        const TASK: usize = 16;
        let each = |(n, out): (usize, &mut [f32])| {
            simd_arch().dispatch(RowSums { readers: self, a, first: n * TASK, out });
        };
        let part = TASK * a.width;
        if threads_for(self.readers.len() * a.width) > 1 {
            out.par_chunks_mut(part).enumerate().for_each(each);
        } else {
            out.chunks_mut(part).enumerate().for_each(each);
        }
    }
}

/// The sums of a few rows.
struct RowSums<'a> {
    readers: &'a Readers,
    a: Table<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl WithSimd for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { readers: Readers { readers, ends }, a, first, out } = self;
        let mut part = Vec::new();
        for (n, out) in out.chunks_exact_mut(a.width).enumerate() {
            let own = &readers[ends[first + n] as usize..ends[first + n + 1] as usize];
            out.fill(0.0);
            if own.len() <= ROWS {
                own.iter().for_each(|&n| general::add(a.row(n as usize), out));
                continue;
            }
            part.resize(a.width, 0.0);
            for own in own.chunks(ROWS) {
                part.fill(0.0);
                own.iter().for_each(|&n| general::add(a.row(n as usize), &mut part));
                general::add(&part, out);
            }
        }
    }
}
