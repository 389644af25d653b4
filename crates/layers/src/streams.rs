//! Many independent streams through one network, which join and leave while it runs.

use crate::{CallArgs, Error, Network, NetworkState, Result, State};
use recurve_tensor::{DType, Tensor, concat};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Identifies a stream of a [`Streams`] or of the like over other models; ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u64);

impl StreamId {
    /// The id with this number, for other kinds of streams.
    #[doc(hidden)]
    pub const fn numbered(n: u64) -> Self {
        Self(n)
    }
}

/// Many streams in one batch: each has its own state on the device, and a step runs the streams that have a frame.
///
/// ```
/// use recurve_layers::{Dense, Gru, Sequential, Streams};
/// use recurve_tensor::Device;
/// # fn main() -> Result<(), recurve_layers::Error> {
/// let network = Sequential::new()
///     .add(Gru::new(8).return_sequences(true))
///     .add(Dense::new(1))
///     .build(&[None, None, Some(4)], &Device::Cpu)?;
/// let mut streams = Streams::new(&network)?;
/// let (a, b) = (streams.join(), streams.join());
/// let out = streams.step(&[(a, &[0.1; 4]), (b, &[0.2; 4])])?;
/// assert_eq!(out.tensor.dims()[1], 1);
/// streams.leave(b)?;
/// let out = streams.step(&[(a, &[0.3; 4])])?.to_vecs()?; // a's second frame
/// # assert_eq!(out.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Streams<'n> {
    network: &'n Network,
    features: Vec<usize>,
    next_id: u64,
    /// The slot, that is the row of the batch, of each stream.
    slots: HashMap<StreamId, usize>,
    free: Vec<usize>,
    /// For each slot of the next step, the slot of the last step from which its state comes; `None` starts with zeros.
    sources: Vec<Option<usize>>,
    state: Option<NetworkState>,
    frame: Vec<f32>,
    active: Vec<u32>,
    /// The shape of a step's input.
    dims: Vec<usize>,
    /// Earlier `rows`, which can be reused once their outputs have been dropped.
    rows: Vec<Arc<Vec<usize>>>,
}

/// The outputs of one step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamOutputs {
    /// One row per slot, `[slots, …]`, on the device. Rows that are not in `rows` have no meaning.
    pub tensor: Tensor,
    /// The row of each frame, in the order in which frames were given.
    pub rows: Arc<Vec<usize>>,
}

impl StreamOutputs {
    /// The outputs in host memory, one per frame in the order in which frames were given.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_vecs(&self) -> Result<Vec<Vec<f32>>> {
        let width: usize = self.tensor.dims()[1..].iter().product();
        let all = self.tensor.to_vec()?;
        Ok(self.rows.iter().map(|&r| all[r * width..(r + 1) * width].to_vec()).collect())
    }
}

/// The number of slots changes by factors of two, so that shapes, and with them buffers, change seldom.
const FEWEST_SLOTS: usize = 8;
/// The number of `rows` lists that are kept for reuse.
const MAX_ROWS: usize = 8;

impl<'n> Streams<'n> {
    /// Streams through a network that takes features and reads forward; none yet. Each stream has its own state, which
    /// starts with zeros. The kept states of the network's stateful layers are neither used nor changed.
    ///
    /// # Errors
    /// [`Error::Option`] with the name of the layer if the network takes ids, the number of features is not known, or
    /// the network cannot run single timesteps for separate rows: a layer reads backwards, computes a mask
    /// ([`crate::Masking`]) or is stateful inside a [`crate::TimeDistributed`], or the input's shape fixes the number
    /// of sequences or timesteps.
    pub fn new(network: &'n Network) -> Result<Self> {
        network.check_streams()?;
        let known: Option<Vec<usize>> = network.input_shape().iter().skip(2).copied().collect();
        match known {
            Some(features) if network.input_dtype() == DType::F32 && !features.is_empty() => Ok(Self {
                network,
                features,
                next_id: 0,
                slots: HashMap::new(),
                free: Vec::new(),
                sources: Vec::new(),
                state: None,
                frame: Vec::new(),
                active: Vec::new(),
                dims: Vec::new(),
                rows: Vec::new(),
            }),
            _ => Err(Error::Option {
                layer: "streams".into(),
                argument: "network",
                message: "must take frames of a known number of features".into(),
            }),
        }
    }

    /// Adds a stream, whose state starts with zeros.
    pub fn join(&mut self) -> StreamId {
        let id = StreamId(self.next_id);
        self.next_id += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            let slots = self.sources.len();
            let more = slots.max(FEWEST_SLOTS);
            // Reversed, so that the lowest slot is used first.
            self.free.extend((slots + 1..slots + more).rev());
            self.sources.resize(slots + more, None);
            slots
        });
        self.sources[slot] = None;
        self.slots.insert(id, slot);
        id
    }

    /// Removes a stream. Its slot is reused.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no such stream.
    pub fn leave(&mut self, id: StreamId) -> Result<()> {
        let slot = self.slots.remove(&id).ok_or_else(|| unknown(id))?;
        self.free.push(slot);
        if self.sources.len() > FEWEST_SLOTS && self.slots.len() * 4 < self.sources.len() {
            self.compact();
        }
        Ok(())
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The number of rows that a step runs.
    pub fn slots(&self) -> usize {
        self.sources.len()
    }

    /// Moves the streams into half as many slots.
    fn compact(&mut self) {
        let mut ids: Vec<StreamId> = self.slots.keys().copied().collect();
        ids.sort_unstable();
        let slots = (self.sources.len() / 2).max(FEWEST_SLOTS);
        let mut sources = vec![None; slots];
        for (to, id) in ids.into_iter().enumerate() {
            let from = self.slots.insert(id, to).expect("the id was just listed");
            sources[to] = self.sources[from];
        }
        self.free = (self.slots.len()..slots).rev().collect();
        self.sources = sources;
    }

    /// Runs one timestep for some of the streams, each with one frame of features. The states of the others are
    /// unchanged.
    ///
    /// # Errors
    /// [`Error::Option`] if a stream does not exist or has two frames, a frame has the wrong number of elements or
    /// there is no frame; errors of the network and the device. After an error the streams are unchanged.
    pub fn step(&mut self, frames: &[(StreamId, &[f32])]) -> Result<StreamOutputs> {
        let bad = |message: String| Err(Error::Option { layer: "streams".into(), argument: "frames", message });
        let size: usize = self.features.iter().product();
        if frames.is_empty() {
            return bad("is empty".into());
        }
        let slots = self.sources.len();
        self.frame.clear();
        self.frame.resize(slots * size, 0.0);
        self.active.clear();
        self.active.resize(slots, 0);
        let mut shared = self.free_rows();
        let rows = Arc::get_mut(&mut shared).expect("free");
        for (id, frame) in frames {
            let slot = *self.slots.get(id).ok_or_else(|| unknown(*id))?;
            if frame.len() != size {
                return bad(format!("must have {size} elements each, but that of {id:?} has {}", frame.len()));
            }
            if self.active[slot] == 1 {
                return bad(format!("has two frames of {id:?}"));
            }
            self.active[slot] = 1;
            self.frame[slot * size..][..size].copy_from_slice(frame);
            rows.push(slot);
        }
        let device = self.network.device();
        self.dims.clear();
        self.dims.push(slots);
        self.dims.extend(&self.features);
        let x = Tensor::from_f32(&self.frame, &self.dims, device)?;
        let lengths = Tensor::from_u32(&self.active, &[slots], device)?;
        let moved = self.moved()?;
        let args = CallArgs { lengths: Some(&lengths), ignore_memory: true, ..CallArgs::default() };
        let (tensor, state) = self.network.step_with(&x, &args, moved.as_deref())?;
        drop(moved);
        self.state = Some(state);
        self.sources.iter_mut().enumerate().for_each(|(n, s)| *s = Some(n));
        if self.rows.len() < MAX_ROWS {
            self.rows.push(shared.clone());
        }
        Ok(StreamOutputs { tensor, rows: shared })
    }

    /// An empty list of rows: one whose outputs have all been dropped, else a new one.
    fn free_rows(&mut self) -> Arc<Vec<usize>> {
        let free = self.rows.iter_mut().position(|r| Arc::get_mut(r).is_some());
        let mut rows = free.map(|n| self.rows.swap_remove(n)).unwrap_or_default();
        Arc::get_mut(&mut rows).expect("free").clear();
        rows
    }

    /// The states, moved to the slots of the next step.
    fn moved(&self) -> Result<Option<Cow<'_, NetworkState>>> {
        let Some(state) = &self.state else { return Ok(None) };
        let old = state.states().first().map_or(0, |s| s.h.dims()[1]);
        if old == self.sources.len() && self.sources.iter().enumerate().all(|(n, s)| *s == Some(n)) {
            return Ok(Some(Cow::Borrowed(state)));
        }
        // A row of zeros is appended to the states, for slots that start new.
        let ids: Vec<u32> = self.sources.iter().map(|s| s.unwrap_or(old) as u32).collect();
        let ids = Tensor::from_u32(&ids, &[ids.len()], self.network.device())?;
        let gather = |t: &Tensor| -> Result<Tensor> {
            let &[levels, rows, width] = t.dims() else { unreachable!("states have three dimensions") };
            let table = t.transpose(&[1, 0, 2])?.reshape(&[rows, levels * width])?;
            let zeros = Tensor::zeros(&[1, levels * width], DType::F32, self.network.device())?;
            let picked = concat(&[&table, &zeros], 0)?.gather(&ids)?;
            Ok(picked.reshape(&[ids.dims()[0], levels, width])?.transpose(&[1, 0, 2])?)
        };
        let states = state
            .states()
            .iter()
            .map(|s| Ok(State { h: gather(&s.h)?, c: s.c.as_ref().map(gather).transpose()? }))
            .collect::<Result<NetworkState>>()?;
        Ok(Some(Cow::Owned(states)))
    }
}

fn unknown(id: StreamId) -> Error {
    Error::Option { layer: "streams".into(), argument: "id", message: format!("{id:?} is not among the streams") }
}
