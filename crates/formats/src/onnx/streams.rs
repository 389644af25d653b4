//! Many independent streams through one ONNX model, which join and leave while it runs.

use super::model::{OnnxModel, OnnxValue, array, failed};
use super::session::StatePair;
use crate::files::short;
use crate::{Error, HostArray, HostData, Result};
use recurve_graph::{Data, Dim, IntArray, RunOptions};
use recurve_layers::StreamId;
use recurve_tensor::{Tensor, concat};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Many streams in one batch: each has its own states, on the device, and a step runs the streams that have a frame.
///
/// This needs a model whose batch is open: every state has one dimension of open size, and every input that differs
/// from stream to stream has a dimension of that name. Inputs without such a dimension are shared by all streams of a
/// step. A model whose file fixes the batch takes an [`crate::OnnxSession`] a stream.
#[derive(Debug)]
pub struct OnnxStreams {
    model: Arc<OnnxModel>,
    /// Places of each state among the inputs and the outputs.
    states: Vec<(usize, usize)>,
    /// Of each input the dimension of the streams; `None` where they share it.
    axes: Vec<Option<usize>>,
    /// Of each output the dimension of the streams.
    output_axes: Vec<usize>,
    next_id: u64,
    /// Where the states of each stream are; `None` for zeros.
    streams: HashMap<StreamId, Option<Row>>,
}

/// The states of several streams, as one step gave them.
#[derive(Debug)]
struct Block {
    states: Vec<Data>,
    rows: usize,
}

#[derive(Clone, Debug)]
struct Row {
    block: Arc<Block>,
    row: usize,
}

/// The first dimension of an input that is the batch.
fn axis_of(v: &OnnxValue, batch: &Dim) -> Option<usize> {
    v.kind.dims.iter().position(|d| d == batch)
}

impl OnnxStreams {
    /// Streams over the states that [`OnnxModel::states`] finds; none yet.
    ///
    /// # Errors
    /// As [`Self::with_states`].
    pub fn new(model: Arc<OnnxModel>) -> Result<Self> {
        let states = model.states();
        Self::with_states(model, &states)
    }

    /// Streams over these states; none yet.
    ///
    /// # Errors
    /// [`Error::Input`] if the states are not the model's, or the model has no open batch dimension.
    pub fn with_states(model: Arc<OnnxModel>, states: &[StatePair]) -> Result<Self> {
        let places = model.places(states)?;
        let bad = |v: &OnnxValue, message: String| Err(Error::Input { name: short(&v.name), message });
        let is_open = |d: &&Dim| d.size().is_none();
        let first = match places.first() {
            Some((i, _)) => &model.inputs()[*i],
            None => match model.inputs().iter().find(|v| v.kind.dims.iter().any(|d| is_open(&d))) {
                Some(v) => v,
                None => {
                    let message = "and the others have fixed sizes in the file, so streams cannot share a call";
                    return bad(&model.inputs()[0], message.into());
                }
            },
        };
        let Some(batch) = first.kind.dims.iter().find(is_open) else {
            let message = format!(
                "is a state of {}: the file fixes its batch, so streams cannot share a call; use a session a stream",
                first.kind
            );
            return bad(first, message);
        };
        let mut axes = Vec::new();
        for (n, v) in model.inputs().iter().enumerate() {
            let state = places.iter().any(|(i, _)| *i == n);
            let axis = axis_of(v, batch);
            let open = v.kind.dims.iter().filter(is_open).count();
            if v.kind.unranked || axis.is_none() && (state || open > 0) || state && open != 1 {
                let message = format!("is {}, in which the batch (`{batch}` of `{}`) is not known", v.kind, first.name);
                return bad(v, message);
            }
            axes.push(axis);
        }
        let output_axis = |(o, v): (usize, &OnnxValue)| {
            let state = places.iter().find(|(_, s)| *s == o).and_then(|(i, _)| axes[*i]);
            // A name says more than an open size.
            let named = |dims: &[Dim]| dims.iter().position(|d| d == batch && *d != Dim::Any);
            state.or_else(|| named(&v.kind.dims)).or_else(|| named(model.declared(o))).unwrap_or(0)
        };
        let output_axes = model.outputs().iter().enumerate().map(output_axis).collect();
        Ok(Self { model, states: places, axes, output_axes, next_id: 0, streams: HashMap::new() })
    }

    /// The model.
    pub fn model(&self) -> &Arc<OnnxModel> {
        &self.model
    }

    /// Adds a stream, whose states begin as zeros.
    pub fn join(&mut self) -> StreamId {
        let id = StreamId::numbered(self.next_id);
        self.next_id += 1;
        self.streams.insert(id, None);
        id
    }

    /// Removes a stream.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such stream.
    pub fn leave(&mut self, id: StreamId) -> Result<()> {
        self.streams.remove(&id).map(drop).ok_or_else(|| unknown(id))
    }

    /// Makes the states of one stream zero again.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such stream.
    pub fn reset(&mut self, id: StreamId) -> Result<()> {
        self.streams.get_mut(&id).map(|s| *s = None).ok_or_else(|| unknown(id))
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// One call for some of the streams: of each its inputs by name, 1 in the batch dimension, and the inputs that all
    /// of them share. Returns the outputs of each that are no states, in the order of `frames`. The states of the other
    /// streams stay as they are.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no frame, a stream does not exist or has two frames, or an input does not fit;
    /// errors of the graph and the device. After an error the streams are as they were.
    pub fn step(
        &mut self,
        frames: &[(StreamId, &[(&str, &HostArray)])],
        shared: &[(&str, &HostArray)],
    ) -> Result<Vec<Vec<(String, HostArray)>>> {
        let bad = |name: &str, message: String| Err(Error::Input { name: short(name), message });
        if frames.is_empty() {
            return bad("frames", "has no frame".into());
        }
        self.compact()?;
        let mut rows = Vec::with_capacity(frames.len());
        let mut seen = HashSet::new();
        for (id, _) in frames {
            rows.push(self.streams.get(id).ok_or_else(|| unknown(*id))?.clone());
            if !seen.insert(id) {
                return bad("frames", format!("has two frames of {id:?}"));
            }
        }
        let model = self.model.clone();
        let place = |name: &str| model.inputs().iter().position(|v| v.name == name);
        for (name, _) in shared {
            if place(name).is_some_and(|n| self.axes[n].is_some()) {
                return bad(name, "has a batch dimension, so each stream has its own".into());
            }
        }
        for (name, _) in frames.iter().flat_map(|(_, inputs)| *inputs) {
            match place(name) {
                Some(n) if self.axes[n].is_none() => {
                    return bad(name, "has no batch dimension, so all streams share it".into());
                }
                Some(n) if self.states.iter().any(|(i, _)| *i == n) => return bad(name, "is a state".into()),
                Some(_) => {}
                None => return bad(name, "is no input of this model".into()),
            }
        }
        let mut joined = Vec::new();
        for (n, v) in model.inputs().iter().enumerate() {
            let (Some(axis), false) = (self.axes[n], self.states.iter().any(|(i, _)| *i == n)) else { continue };
            let mut parts = Vec::with_capacity(frames.len());
            for (id, inputs) in frames {
                let mut own = inputs.iter().filter(|(name, _)| *name == v.name);
                match (own.next(), own.next()) {
                    (Some((_, a)), None) => parts.push(*a),
                    (None, _) => return bad(&v.name, format!("of {id:?} is missing; it is {}", v.kind)),
                    _ => return bad(&v.name, format!("of {id:?} is given twice")),
                }
            }
            joined.push((&v.name[..], join(&v.name, &parts, axis)?));
        }
        let states = self.gathered(&rows)?;
        let given = |n: usize| self.states.iter().position(|(i, _)| *i == n).map(|s| states[s].clone());
        let inputs = joined.iter().map(|(n, a)| (*n, a)).chain(shared.iter().copied());
        let data = model.data_with(inputs, given)?;
        let mut outputs = model.executor().run_data(&data, &RunOptions::default()).map_err(failed)?;
        let count = frames.len();
        let mut all: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for (o, v) in model.outputs().iter().enumerate() {
            let wrong = |dims: &[usize]| {
                let axis = self.output_axes[o];
                let message =
                    format!("is an output of shape {dims:?}, which has no {count} streams at dimension {axis}");
                Err(Error::Input { name: short(&v.name), message })
            };
            let Some(data) = &outputs[o] else { return wrong(&[]) };
            if data.dims().get(self.output_axes[o]) != Some(&count) {
                return wrong(data.dims());
            }
            if self.states.iter().all(|(_, s)| *s != o) {
                let parts = split(&array(data, v.kind.dtype)?, self.output_axes[o]);
                all.iter_mut().zip(parts).for_each(|(own, part)| own.push((v.name.clone(), part)));
            }
        }
        let states = self.states.iter().map(|(_, o)| outputs[*o].take().expect("looked at above")).collect();
        let block = Arc::new(Block { states, rows: count });
        for (row, (id, _)) in frames.iter().enumerate() {
            self.streams.insert(*id, Some(Row { block: block.clone(), row }));
        }
        Ok(all)
    }

    /// The states of these streams, one row after the other.
    fn gathered(&self, rows: &[Option<Row>]) -> Result<Vec<Data>> {
        if let Some(Some(first)) = rows.first() {
            let in_place = |(n, r): (usize, &Option<Row>)| {
                r.as_ref().is_some_and(|r| r.row == n && Arc::ptr_eq(&r.block, &first.block))
            };
            if first.block.rows == rows.len() && rows.iter().enumerate().all(in_place) {
                return Ok(first.block.states.clone());
            }
        }
        let mut blocks: Vec<&Block> = Vec::new();
        // The index of a row among all rows of the blocks; streams that begin share the row of zeros after them.
        let mut starts: Vec<usize> = Vec::new();
        let mut end = 0;
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(row) = row else {
                ids.push(None);
                continue;
            };
            let known = blocks.iter().position(|b| std::ptr::eq(*b, &*row.block));
            let n = known.unwrap_or_else(|| {
                starts.push(end);
                end += row.block.rows;
                blocks.push(&row.block);
                blocks.len() - 1
            });
            ids.push(Some(starts[n] + row.row));
        }
        let ids: Vec<usize> = ids.into_iter().map(|i| i.unwrap_or(end)).collect();
        let gather = |(s, (i, _)): (usize, &(usize, usize))| {
            let zero = self.model.zeros(*i, 1)?;
            let mut parts: Vec<&Data> = blocks.iter().map(|b| &b.states[s]).collect();
            if ids.contains(&end) {
                parts.push(&zero);
            }
            let axis = self.axes[*i].expect("every state has a batch");
            picked(&parts, axis, &ids)
        };
        self.states.iter().enumerate().map(gather).collect()
    }

    /// Moves the states of streams that have been idle to a place of their own if most of the step that they come from
    /// is not needed any more.
    fn compact(&mut self) -> Result<()> {
        let mut held: HashMap<*const Block, Vec<StreamId>> = HashMap::new();
        for (id, row) in self.streams.iter().filter_map(|(id, r)| Some((id, r.as_ref()?))) {
            held.entry(Arc::as_ptr(&row.block)).or_default().push(*id);
        }
        for ids in held.into_values() {
            let rows: Vec<_> = ids.iter().map(|id| self.streams[id].clone()).collect();
            let sparse = rows[0].as_ref().is_some_and(|r| r.block.rows > 2 * rows.len());
            if !sparse {
                continue;
            }
            let block = Arc::new(Block { states: self.gathered(&rows)?, rows: rows.len() });
            for (row, id) in ids.into_iter().enumerate() {
                self.streams.insert(id, Some(Row { block: block.clone(), row }));
            }
        }
        Ok(())
    }
}

fn unknown(id: StreamId) -> Error {
    Error::Input { name: "streams".into(), message: format!("{id:?} is not among the streams") }
}

/// Rows of arrays that follow each other along a dimension.
fn picked(parts: &[&Data], axis: usize, ids: &[usize]) -> Result<Data> {
    let dims = parts[0].dims();
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let mut shape = dims.to_vec();
    shape[axis] = ids.len();
    if parts.iter().any(|p| p.as_tensor().is_none_or(|t| !t.dtype().is_float())) {
        let parts: Vec<IntArray> = parts.iter().map(|p| p.to_ints()).collect::<Result<_, _>>()?;
        let mut rows: Vec<(&IntArray, usize)> = Vec::new();
        parts.iter().for_each(|p| rows.extend((0..p.dims()[axis]).map(|r| (p, r))));
        let mut all = Vec::with_capacity(shape.iter().product());
        for o in 0..outer {
            for (part, row) in ids.iter().map(|&i| rows[i]) {
                all.extend_from_slice(&part.data()[(o * part.dims()[axis] + row) * inner..][..inner]);
            }
        }
        return Ok(IntArray::new(&shape, all).into());
    }
    let mut front: Vec<usize> = (0..dims.len()).collect();
    front.remove(axis);
    front.insert(0, axis);
    let table = |p: &&Data| -> Result<Tensor> {
        let t = p.as_tensor().expect("looked at above");
        let rows = t.dims()[axis];
        let t = if outer > 1 { t.transpose(&front)? } else { t.clone() };
        Ok(t.reshape(&[rows, outer * inner])?)
    };
    let tables = parts.iter().map(table).collect::<Result<Vec<_>>>()?;
    let whole = concat(&tables.iter().collect::<Vec<_>>(), 0)?;
    let rows: Vec<u32> = ids.iter().map(|&i| i as u32).collect();
    let rows = whole.gather(&Tensor::from_u32(&rows, &[ids.len()], &whole.device())?)?;
    if outer == 1 {
        return Ok(rows.reshape(&shape)?.into());
    }
    let moved: Vec<usize> = front.iter().map(|&d| shape[d]).collect();
    // Where each dimension of the result is among those with the rows in front.
    let back: Vec<usize> = (0..shape.len()).map(|d| front.iter().position(|f| *f == d).expect("all of them")).collect();
    Ok(rows.reshape(&moved)?.transpose(&back)?.into())
}

/// Arrays of 1 along a dimension as one.
fn join(name: &str, parts: &[&HostArray], axis: usize) -> Result<HostArray> {
    let first = parts[0];
    for p in parts {
        if p.shape.get(axis) != Some(&1) || p.shape != first.shape {
            let message =
                format!("of each stream must have 1 at dimension {axis} and one shape, but one has {:?}", p.shape);
            return Err(Error::Input { name: short(name), message });
        }
    }
    let mut shape = first.shape.clone();
    shape[axis] = parts.len();
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let whole = parts.iter().all(|p| matches!(p.data, HostData::Int(_)));
    let data = if whole {
        let ints: Vec<&[i64]> = parts.iter().filter_map(|p| p.data.ints()).collect();
        HostData::Int(
            (0..outer).flat_map(|o| ints.iter().flat_map(move |v| &v[o * inner..][..inner])).copied().collect(),
        )
    } else {
        let floats: Vec<Vec<f32>> = parts.iter().map(|p| p.to_f32()).collect();
        let rows = (0..outer).flat_map(|o| floats.iter().flat_map(move |v| &v[o * inner..][..inner]));
        HostData::Float(rows.copied().collect())
    };
    Ok(HostArray { shape, data })
}

/// The parts of an array along a dimension, each with 1 there.
fn split(a: &HostArray, axis: usize) -> Vec<HostArray> {
    let count = a.shape[axis];
    let mut shape = a.shape.clone();
    shape[axis] = 1;
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let part = |row: usize| {
        let ranges = (0..outer).map(move |o| (o * count + row) * inner..(o * count + row + 1) * inner);
        let data = match &a.data {
            HostData::Float(v) => HostData::Float(ranges.flat_map(|r| v[r].iter().copied()).collect()),
            HostData::Int(v) => HostData::Int(ranges.flat_map(|r| v[r].iter().copied()).collect()),
        };
        HostArray { shape: shape.clone(), data }
    };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use recurve_tensor::Device;

    fn ints(shape: &[usize], first: i64) -> HostArray {
        let count = shape.iter().product::<usize>() as i64;
        HostArray { shape: shape.to_vec(), data: HostData::Int((first..first + count).collect()) }
    }

    #[test]
    fn arrays_are_split_as_they_were_joined() {
        for axis in 0..3 {
            let mut shape = [2, 3, 4];
            shape[axis] = 1;
            let parts = [ints(&shape, 0), ints(&shape, 100), ints(&shape, 200)];
            let one = join("x", &parts.iter().collect::<Vec<_>>(), axis).unwrap();
            assert_eq!(one.shape[axis], 3);
            assert_eq!(split(&one, axis), parts);
        }
        let (a, b) = (ints(&[1, 2], 0), ints(&[1, 3], 0));
        assert!(join("x", &[&a, &b], 0).unwrap_err().to_string().contains("`x`"));
        assert!(join("x", &[&a], 1).is_err());
    }

    #[test]
    fn rows_are_picked_along_any_dimension() {
        for axis in 0..3 {
            let (mut one, mut two) = ([2, 3, 4], [2, 3, 4]);
            (one[axis], two[axis]) = (2, 3);
            let (a, b) = (ints(&one, 0), ints(&two, 100));
            let rows: Vec<HostArray> = [split(&a, axis), split(&b, axis)].concat();
            let ids = [4, 0, 0, 2];
            let want = join("x", &ids.iter().map(|&i| &rows[i]).collect::<Vec<_>>(), axis).unwrap();
            let whole = |a: &HostArray| Data::from(IntArray::new(&a.shape, a.data.ints().unwrap()));
            let got = picked(&[&whole(&a), &whole(&b)], axis, &ids).unwrap();
            assert_eq!((got.dims(), got.to_ints().unwrap().data()), (&want.shape[..], want.data.ints().unwrap()));
            let float = |a: &HostArray| Data::from(Tensor::from_f32(&a.to_f32(), &a.shape, &Device::Cpu).unwrap());
            let got = picked(&[&float(&a), &float(&b)], axis, &ids).unwrap();
            assert_eq!(got.dims(), want.shape);
            assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), want.to_f32());
        }
    }
}
