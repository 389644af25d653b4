//! Data in host memory, and batches of it.

use crate::error::check;
use crate::{Batch, Error, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use recurve_formats::{HostArray, HostData};
use recurve_tensor::{DType, Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// An array in host memory whose first axis counts samples: floats, or whole numbers such as ids and labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    F32(Vec<f32>),
    U32(Vec<u32>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::U32(v) => v.len(),
        }
    }

    /// An empty one of the same type with room.
    fn with_capacity(&self, n: usize) -> Self {
        match self {
            Self::F32(_) => Self::F32(Vec::with_capacity(n)),
            Self::U32(_) => Self::U32(Vec::with_capacity(n)),
        }
    }

    fn extend(&mut self, from: &Self, range: Range<usize>) {
        match (self, from) {
            (Self::F32(to), Self::F32(from)) => to.extend_from_slice(&from[range]),
            (Self::U32(to), Self::U32(from)) => to.extend_from_slice(&from[range]),
            _ => unreachable!("both are of one array"),
        }
    }

    /// Adds a value many times.
    fn pad(&mut self, value: f32, n: usize) {
        match self {
            Self::F32(v) => v.resize(v.len() + n, value),
            Self::U32(v) => v.resize(v.len() + n, value as u32),
        }
    }
}

const DATA: &str = "data";

fn shape_fits(len: usize, shape: &[usize]) -> Result<()> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if count == Some(len) && !shape.is_empty() {
        return Ok(());
    }
    Err(Error::Operand {
        of: "array",
        argument: "values",
        expected: format!("the elements of {shape:?}, of which the first axis counts samples"),
        got: format!("{len} elements"),
    })
}

impl Array {
    /// Floats.
    ///
    /// # Errors
    /// [`Error::Operand`] unless there is a value for each element of the shape, which has at least one axis.
    pub fn f32(values: Vec<f32>, shape: &[usize]) -> Result<Self> {
        shape_fits(values.len(), shape)?;
        Ok(Self { shape: shape.to_vec(), values: Values::F32(values) })
    }

    /// Ids or labels.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn u32(values: Vec<u32>, shape: &[usize]) -> Result<Self> {
        shape_fits(values.len(), shape)?;
        Ok(Self { shape: shape.to_vec(), values: Values::U32(values) })
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type, F32 or U32.
    pub fn dtype(&self) -> DType {
        match self.values {
            Values::F32(_) => DType::F32,
            Values::U32(_) => DType::U32,
        }
    }

    /// The elements, if they are floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let Values::F32(v) = &self.values { Some(v) } else { None }
    }

    /// The elements, if they are ids or labels.
    pub fn as_u32(&self) -> Option<&[u32]> {
        if let Values::U32(v) = &self.values { Some(v) } else { None }
    }

    /// The samples at these places, in this order.
    fn rows(&self, places: &[usize]) -> Self {
        let size: usize = self.shape[1..].iter().product();
        let mut values = self.values.with_capacity(places.len() * size);
        places.iter().for_each(|&p| values.extend(&self.values, p * size..(p + 1) * size));
        let mut shape = self.shape.clone();
        shape[0] = places.len();
        Self { shape, values }
    }

    /// Arrays that follow each other, which agree in all but their first axis.
    pub(crate) fn joined(parts: &[Self]) -> Option<Self> {
        let first = parts.first()?;
        let mut values = first.values.with_capacity(parts.iter().map(|p| p.values.len()).sum());
        let mut shape = first.shape.clone();
        shape[0] = 0;
        for part in parts {
            if part.shape[1..] != shape[1..] || part.dtype() != first.dtype() {
                return None;
            }
            values.extend(&part.values, 0..part.values.len());
            shape[0] += part.shape[0];
        }
        Some(Self { shape, values })
    }

    /// The array on a device.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(match &self.values {
            Values::F32(v) => Tensor::from_f32(v, &self.shape, device)?,
            Values::U32(v) => Tensor::from_u32(v, &self.shape, device)?,
        })
    }

    /// The elements of a tensor.
    pub(crate) fn read(tensor: &Tensor) -> Result<Self> {
        let shape = tensor.dims();
        // A single number is a sample.
        let shape = if shape.is_empty() { &[1] } else { shape };
        match tensor.dtype() {
            DType::U32 => Self::u32(tensor.to_vec_u32()?, shape),
            _ => Self::f32(tensor.to_vec()?, shape),
        }
    }
}

impl TryFrom<HostArray> for Array {
    type Error = Error;

    /// Whole numbers become ids.
    ///
    /// # Errors
    /// [`Error::Operand`] for a number below 0 or above 2^32 - 1, and for an array without axes.
    fn try_from(array: HostArray) -> Result<Self> {
        match array.data {
            HostData::Float(v) => Self::f32(v, &array.shape),
            HostData::Int(v) => {
                let ids = v.iter().map(|&v| u32::try_from(v).map_err(|_| v)).collect::<Result<Vec<_>, _>>();
                let ids = ids.map_err(|v| Error::Operand {
                    of: "array",
                    argument: "values",
                    expected: "whole numbers from 0 to 4294967295".into(),
                    got: v.to_string(),
                })?;
                Self::u32(ids, &array.shape)
            }
            _ => Err(Error::Option { of: "array", argument: "values", message: "must be numbers".into() }),
        }
    }
}

/// The beginning or the end of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Side {
    /// Before the first timestep.
    #[default]
    Pre,
    /// After the last timestep.
    Post,
}

/// How sequences of different lengths become arrays of one length, with Keras's defaults (`pad_sequences`).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Padding {
    /// The length, Keras's `maxlen`; without one each batch has that of its longest sequence.
    pub length: Option<usize>,
    /// Where short sequences are filled.
    pub padding: Side,
    /// Where long sequences are cut.
    pub truncating: Side,
    /// What they are filled with.
    pub value: f32,
    /// Whether the network is told which timesteps are valid: by the lengths for padding behind, else by a mask.
    pub masked: bool,
}

impl Default for Padding {
    fn default() -> Self {
        Self { length: None, padding: Side::Pre, truncating: Side::Pre, value: 0.0, masked: false }
    }
}

impl Padding {
    /// Padding in front with 0 to the longest of a batch; nothing is masked.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same to a length.
    #[must_use]
    pub fn length(self, length: usize) -> Self {
        Self { length: Some(length), ..self }
    }

    /// The same on a side.
    #[must_use]
    pub fn padding(self, padding: Side) -> Self {
        Self { padding, ..self }
    }

    /// The same with long sequences cut on a side.
    #[must_use]
    pub fn truncating(self, truncating: Side) -> Self {
        Self { truncating, ..self }
    }

    /// The same with another value.
    #[must_use]
    pub fn value(self, value: f32) -> Self {
        Self { value, ..self }
    }

    /// The same with the network told which timesteps are valid.
    #[must_use]
    pub fn masked(self) -> Self {
        Self { masked: true, ..self }
    }
}

/// Sequences of different lengths: of ids, of labels, or of vectors of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequences {
    values: Values,
    /// Where each sequence ends, in timesteps.
    ends: Vec<usize>,
    /// The number of features of a timestep; none for numbers.
    features: Option<usize>,
    padding: Padding,
}

impl Sequences {
    /// Sequences of ids or labels.
    ///
    /// # Errors
    /// [`Error::Option`] if the value to pad with is no id.
    pub fn of_ids<S: AsRef<[u32]>>(sequences: impl IntoIterator<Item = S>, padding: Padding) -> Result<Self> {
        let v = padding.value;
        check("padding", "value", v >= 0.0 && v.fract() == 0.0 && v < 16_777_216.0, || {
            format!("must be a whole number that is not negative for sequences of ids, but it is {v}")
        })?;
        let (mut values, mut ends) = (Vec::new(), Vec::new());
        for s in sequences {
            values.extend_from_slice(s.as_ref());
            ends.push(values.len());
        }
        Self { values: Values::U32(values), ends, features: None, padding }.checked()
    }

    /// Sequences of vectors, each `[timesteps, features]` row by row.
    ///
    /// # Errors
    /// [`Error::Operand`] for a sequence that does not consist of such vectors.
    pub fn of_features<S: AsRef<[f32]>>(
        sequences: impl IntoIterator<Item = S>,
        features: usize,
        padding: Padding,
    ) -> Result<Self> {
        check("sequences", "features", features > 0, || "must be at least 1, but it is 0".into())?;
        let (mut values, mut ends) = (Vec::new(), Vec::new());
        for s in sequences {
            let len = s.as_ref().len();
            if !len.is_multiple_of(features) {
                return Err(Error::Operand {
                    of: "sequences",
                    argument: "sequence",
                    expected: format!("timesteps of {features} features"),
                    got: format!("{len} numbers at place {}", ends.len()),
                });
            }
            values.extend_from_slice(s.as_ref());
            ends.push(values.len() / features);
        }
        Self { values: Values::F32(values), ends, features: Some(features), padding }.checked()
    }

    fn checked(self) -> Result<Self> {
        check("padding", "length", self.padding.length != Some(0), || "must be at least 1, but it is 0".into())?;
        Ok(self)
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The timesteps of a sequence.
    fn range(&self, place: usize) -> Range<usize> {
        place.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[place]
    }

    /// The number of timesteps of a sequence after it was cut.
    fn length_of(&self, place: usize) -> usize {
        self.range(place).len().min(self.padding.length.unwrap_or(usize::MAX))
    }

    /// The sequences at these places as an array `[B, T]` or `[B, T, F]`, with the number of valid timesteps of each.
    fn padded(&self, places: &[usize]) -> (Array, Vec<u32>) {
        let longest = || places.iter().map(|&p| self.length_of(p)).max().unwrap_or(0);
        // An array has at least one timestep.
        let steps = self.padding.length.unwrap_or_else(longest).max(1);
        let width = self.features.unwrap_or(1);
        let mut values = self.values.with_capacity(places.len() * steps * width);
        let mut lengths = Vec::with_capacity(places.len());
        for &place in places {
            let (range, length) = (self.range(place), self.length_of(place));
            let range = match self.padding.truncating {
                Side::Pre => range.end - length..range.end,
                Side::Post => range.start..range.start + length,
            };
            let own = range.start * width..range.end * width;
            let fill = (steps - length) * width;
            match self.padding.padding {
                Side::Pre => {
                    values.pad(self.padding.value, fill);
                    values.extend(&self.values, own);
                }
                Side::Post => {
                    values.extend(&self.values, own);
                    values.pad(self.padding.value, fill);
                }
            }
            lengths.push(length as u32);
        }
        let mut shape = vec![places.len(), steps];
        shape.extend(self.features);
        (Array { shape, values }, lengths)
    }

    /// All sequences as one array `[N, T]` or `[N, T, F]`: Keras's `pad_sequences`.
    pub fn pad(&self) -> Array {
        self.padded(&(0..self.len()).collect::<Vec<_>>()).0
    }
}

/// Inputs or targets: an array, or sequences that are padded batch by batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Column {
    /// An array.
    Array(Array),
    /// Sequences.
    Sequences(Sequences),
}

impl From<Array> for Column {
    fn from(array: Array) -> Self {
        Self::Array(array)
    }
}

impl From<Sequences> for Column {
    fn from(sequences: Sequences) -> Self {
        Self::Sequences(sequences)
    }
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Self::Array(a) => a.len(),
            Self::Sequences(s) => s.len(),
        }
    }

    fn rows(&self, places: &[usize]) -> Array {
        match self {
            Self::Array(a) => a.rows(places),
            Self::Sequences(s) => s.padded(places).0,
        }
    }

    /// Elements that may be labels, with the place of the first of them.
    fn labels(&self, samples: &Range<usize>) -> Option<(usize, &[u32])> {
        let (values, range) = match self {
            Self::Array(a) => {
                let size: usize = a.shape[1..].iter().product();
                (&a.values, samples.start * size..samples.end * size)
            }
            Self::Sequences(s) if samples.is_empty() => (&s.values, 0..0),
            Self::Sequences(s) => (&s.values, s.range(samples.start).start..s.range(samples.end - 1).end),
        };
        if let Values::U32(v) = values { Some((range.start, &v[range])) } else { None }
    }
}

#[derive(Debug)]
struct Columns {
    inputs: Vec<Column>,
    targets: Vec<Column>,
    weights: Option<Array>,
}

/// Samples in host memory: inputs and what the outputs should be. Clones and parts share the elements.
///
/// ```
/// use recurve_train::{Array, Dataset, Padding, Sequences};
/// # fn main() -> recurve_train::Result<()> {
/// let words = Sequences::of_ids([vec![4, 7, 2], vec![9]], Padding::new().length(5))?;
/// let labels = Array::f32(vec![1.0, 0.0], &[2, 1])?;
/// let data = Dataset::new(words, labels)?;
/// let (train, validation) = data.split(0.5)?;
/// assert_eq!((train.len(), validation.len()), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    columns: Arc<Columns>,
    /// The samples of this part.
    samples: Range<usize>,
}

impl Dataset {
    /// Samples with one input and one target each.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn new(input: impl Into<Column>, target: impl Into<Column>) -> Result<Self> {
        Self::of(vec![input.into()], vec![target.into()])
    }

    /// Samples for a network with several inputs or outputs, in their order. Without targets they can only be predicted.
    ///
    /// # Errors
    /// [`Error::Option`] if there are no inputs or no samples; [`Error::Operand`] if the numbers of samples differ.
    pub fn of(inputs: Vec<Column>, targets: Vec<Column>) -> Result<Self> {
        check(DATA, "inputs", !inputs.is_empty(), || "must be at least one, but there are none".into())?;
        let count = inputs[0].len();
        check(DATA, "inputs", count > 0, || "must have at least one sample, but there are none".into())?;
        let named = inputs.iter().map(|c| ("inputs", c)).chain(targets.iter().map(|c| ("targets", c)));
        for (argument, column) in named {
            same_count(argument, column.len(), count)?;
        }
        Ok(Self { columns: Arc::new(Columns { inputs, targets, weights: None }), samples: 0..count })
    }

    /// The same with weights of the samples: `[N]`, or for outputs of every timestep `[N, T]`.
    ///
    /// # Errors
    /// [`Error::Operand`] for another number of samples, or for values that are not finite floats.
    pub fn sample_weights(self, weights: Array) -> Result<Self> {
        same_count("sample_weights", weights.len(), self.columns.inputs[0].len())?;
        let finite = weights.as_f32().is_some_and(|v| v.iter().all(|w| w.is_finite()));
        check(DATA, "sample_weights", finite, || "must be finite floats".into())?;
        let Columns { inputs, targets, .. } = &*self.columns;
        let columns = Columns { inputs: inputs.clone(), targets: targets.clone(), weights: Some(weights) };
        Ok(Self { columns: Arc::new(columns), samples: self.samples })
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none. There always is one.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// How many inputs a sample has.
    pub fn inputs(&self) -> usize {
        self.columns.inputs.len()
    }

    /// How many targets a sample has.
    pub fn targets(&self) -> usize {
        self.columns.targets.len()
    }

    /// The first samples, and a part at the end: Keras's `validation_split`, which is taken before anything is shuffled.
    ///
    /// # Errors
    /// [`Error::Option`] unless both parts have a sample.
    pub fn split(&self, last: f64) -> Result<(Self, Self)> {
        let at = self.samples.start + (self.len() as f64 * (1.0 - last)) as usize;
        let parts = [self.samples.start..at, at..self.samples.end];
        check(DATA, "split", (0.0..1.0).contains(&last) && parts.iter().all(|p| !p.is_empty()), || {
            format!("must leave samples in both parts, but it is {last} of {}", self.len())
        })?;
        let [first, last] = parts.map(|samples| Self { columns: self.columns.clone(), samples });
        Ok((first, last))
    }

    /// The samples in batches, in their order.
    ///
    /// # Errors
    /// [`Error::Option`] for a batch of nothing.
    pub fn batches(&self, batch_size: usize) -> Result<Batches> {
        check(DATA, "batch_size", batch_size > 0, || "must be at least 1, but it is 0".into())?;
        Ok(Batches { data: self.clone(), batch_size, shuffle: None, by_length: None, drop_last: false })
    }

    /// The number of timesteps of a sample's first input that has sequences.
    fn length_of(&self, sample: usize) -> usize {
        let lengths = self.columns.inputs.iter().filter_map(|c| match c {
            Column::Sequences(s) => Some(s.length_of(sample)),
            Column::Array(_) => None,
        });
        lengths.max().unwrap_or(0)
    }

    /// The samples at these places.
    fn batch(&self, places: &[usize]) -> Result<HostBatch> {
        let Columns { inputs, targets, weights } = &*self.columns;
        let mut batch = HostBatch {
            inputs: inputs.iter().map(|c| c.rows(places)).collect(),
            targets: targets.iter().map(|c| c.rows(places)).collect(),
            sample_weights: weights.as_ref().map(|w| w.rows(places)),
            mask: None,
            lengths: None,
        };
        if let Column::Sequences(s) = &inputs[0]
            && s.padding.masked
        {
            let (array, lengths) = s.padded(places);
            if s.padding.padding == Side::Post {
                batch.lengths = Some(Array::u32(lengths, &[places.len()])?);
            } else {
                let steps = array.shape[1];
                let row = |&n: &u32| (0..steps).map(move |t| u32::from(t + n as usize >= steps));
                let mask = lengths.iter().flat_map(row).collect();
                batch.mask = Some(Array::u32(mask, &[places.len(), steps])?);
            }
        }
        Ok(batch)
    }

    /// Checks the labels of a target.
    pub(crate) fn check_labels(&self, target: usize, classes: usize) -> Result<()> {
        let labels = self.columns.targets.get(target).and_then(|c| c.labels(&self.samples));
        let Some((first, labels)) = labels else { return Ok(()) };
        check_ids(labels, first, classes)
    }
}

/// Checks labels, of which the first stands at a place.
pub(crate) fn check_ids(labels: &[u32], first: usize, classes: usize) -> Result<()> {
    match labels.iter().position(|&l| l as usize >= classes) {
        Some(n) => Err(Error::Label { index: first + n, label: labels[n].into(), classes }),
        None => Ok(()),
    }
}

fn same_count(argument: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Operand {
        of: DATA,
        argument,
        expected: format!("{expected} samples, as the first input"),
        got: format!("{got}"),
    })
}

/// A batch in host memory.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HostBatch {
    /// The inputs of the network, in order.
    pub inputs: Vec<Array>,
    /// What its outputs should be.
    pub targets: Vec<Array>,
    /// Weights of the samples.
    pub sample_weights: Option<Array>,
    /// Which timesteps are valid, `[B, T]`.
    pub mask: Option<Array>,
    /// The number of valid timesteps of each sequence, `[B]`.
    pub lengths: Option<Array>,
}

impl HostBatch {
    /// Inputs with their targets.
    pub fn new(inputs: Vec<Array>, targets: Vec<Array>) -> Self {
        Self { inputs, targets, sample_weights: None, mask: None, lengths: None }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.inputs.first().map_or(0, Array::len)
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch on a device.
    pub(crate) fn to_device(&self, device: &Device) -> Result<DeviceBatch> {
        let all = |arrays: &[Array]| arrays.iter().map(|a| a.to_tensor(device)).collect::<Result<Vec<_>>>();
        let one = |array: &Option<Array>| array.as_ref().map(|a| a.to_tensor(device)).transpose();
        Ok(DeviceBatch {
            inputs: all(&self.inputs)?,
            targets: all(&self.targets)?,
            sample_weights: one(&self.sample_weights)?,
            mask: one(&self.mask)?,
            lengths: one(&self.lengths)?,
        })
    }
}

/// A batch on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceBatch {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) targets: Vec<Tensor>,
    pub(crate) sample_weights: Option<Tensor>,
    pub(crate) mask: Option<Tensor>,
    pub(crate) lengths: Option<Tensor>,
}

impl DeviceBatch {
    /// Hands the batch to a function.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Batch<'_>) -> R) -> R {
        let inputs: Vec<&Tensor> = self.inputs.iter().collect();
        let targets: Vec<&Tensor> = self.targets.iter().collect();
        let mut batch = Batch::new(&inputs, &targets);
        batch.sample_weights = self.sample_weights.as_ref();
        batch.mask = self.mask.as_ref();
        batch.lengths = self.lengths.as_ref();
        f(&batch)
    }
}

/// The batches of one epoch.
pub type Epoch<'a> = Box<dyn Iterator<Item = Result<HostBatch>> + 'a>;

/// Where batches come from: [`Batches`] of a [`Dataset`], or a function that makes an iterator for each epoch.
///
/// ```
/// use recurve_train::{Array, HostBatch, Source};
/// # fn main() -> recurve_train::Result<()> {
/// let mut endless = |epoch: usize| (0..10).map(move |n| {
///     let x = Array::f32(vec![(epoch * 10 + n) as f32; 6], &[2, 3, 1])?;
///     Ok(HostBatch::new(vec![x], vec![Array::f32(vec![0.0; 2], &[2, 1])?]))
/// });
/// assert_eq!(Source::epoch(&mut endless, 0)?.count(), 10);
/// # Ok(())
/// # }
/// ```
pub trait Source {
    /// The batches of an epoch, of which the first is 0. An exact resume needs the same batches for the same epoch.
    ///
    /// # Errors
    /// Whatever keeps it from beginning.
    fn epoch(&mut self, epoch: usize) -> Result<Epoch<'_>>;

    /// How many batches an epoch has, if that is known.
    fn count(&self) -> Option<usize> {
        None
    }
}

impl<F, I> Source for F
where
    F: FnMut(usize) -> I,
    I: Iterator<Item = Result<HostBatch>> + 'static,
{
    fn epoch(&mut self, epoch: usize) -> Result<Epoch<'_>> {
        Ok(Box::new(self(epoch)))
    }
}

/// A [`Dataset`] in batches.
#[derive(Clone, Debug)]
pub struct Batches {
    data: Dataset,
    batch_size: usize,
    shuffle: Option<u64>,
    by_length: Option<usize>,
    drop_last: bool,
}

impl Batches {
    /// The same in another order in every epoch, which depends on this seed and the number of the epoch alone.
    #[must_use]
    pub fn shuffle(self, seed: u64) -> Self {
        Self { shuffle: Some(seed), ..self }
    }

    /// The same with sequences of about one length in a batch, so that little is padded: of the samples of so many
    /// batches, in their order, those of about one length come together.
    #[must_use]
    pub fn by_length(self, window: usize) -> Self {
        Self { by_length: Some(window.max(1)), ..self }
    }

    /// The same without a last batch that is smaller.
    #[must_use]
    pub fn drop_last(self) -> Self {
        Self { drop_last: true, ..self }
    }

    /// The batches of an epoch, of which the first is 0, that share the samples and borrow nothing.
    pub fn of_epoch(&self, epoch: usize) -> impl ExactSizeIterator<Item = Result<HostBatch>> + Send + use<> {
        let data = self.data.clone();
        self.places(epoch).into_iter().map(move |places| data.batch(&places))
    }

    /// The places of the samples of each batch.
    fn places(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut places: Vec<usize> = self.data.samples.clone().collect();
        // Another stream of the same seed for each epoch.
        let mut rng = self.shuffle.map(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch as u64);
            rng
        });
        if let Some(rng) = &mut rng {
            places.shuffle(rng);
        }
        if let Some(window) = self.by_length {
            for part in places.chunks_mut(window.saturating_mul(self.batch_size)) {
                part.sort_by_key(|&p| self.data.length_of(p));
            }
        }
        let mut batches: Vec<Vec<usize>> = places.chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        if self.drop_last {
            batches.retain(|b| b.len() == self.batch_size);
        }
        if let (Some(rng), Some(_)) = (&mut rng, self.by_length) {
            batches.shuffle(rng);
        }
        batches
    }
}

impl Source for Batches {
    fn epoch(&mut self, epoch: usize) -> Result<Epoch<'_>> {
        Ok(Box::new(self.of_epoch(epoch)))
    }

    fn count(&self) -> Option<usize> {
        let n = self.data.len();
        Some(if self.drop_last { n / self.batch_size } else { n.div_ceil(self.batch_size) })
    }
}
