//! Inputs that are made up, for models that are checked or timed without any.

use crate::{Error, HostArray, HostData, InputConfig, LayerConfig, Model, NamedLayer, OnnxModel, OnnxValue};
use recurve_graph::{Dim, Element};
use std::collections::HashMap;

/// Largest number of elements of all layers' outputs together: the reference keeps all of them as f64.
const MAX_OUTPUTS: u128 = 1 << 28;
/// Elements of an input of an ONNX model that is made up, at most.
const MAX_ELEMENTS: usize = 1 << 26;

fn wrong(name: &str, message: String) -> Error {
    Error::Input { name: name.into(), message }
}

/// Checks that the outputs of all layers for an input of this shape, kept as f64, fit into memory.
///
/// # Errors
/// [`Error::Input`] if they have more than 2^28 elements.
pub fn check_size(model: &Model, name: &str, shape: &[usize]) -> Result<(), Error> {
    let any = |n: usize, d: Option<usize>| d.unwrap_or_else(|| shape.get(n).copied().unwrap_or(1)) as u128;
    let elements =
        |dims: &Vec<Option<usize>>| dims.iter().enumerate().fold(1u128, |all, (n, d)| all.saturating_mul(any(n, *d)));
    let summary = model.summary();
    let outputs = summary.layers.iter().flat_map(|l| &l.output_shapes).map(elements);
    let all = outputs.fold(0u128, u128::saturating_add);
    if all <= MAX_OUTPUTS {
        return Ok(());
    }
    Err(wrong(
        name,
        format!("of shape {shape:?}, makes {all} outputs in all layers, but at most {MAX_OUTPUTS} are checked at once"),
    ))
}

/// Inputs of the right shapes and types for a model, the same in every run: open dimensions are the batch and the
/// timesteps, in this order, and any others are 1; ids are those that the embeddings know.
///
/// # Errors
/// [`Error::Input`] if these sizes are too large to be checked.
pub fn example_inputs(model: &Model, batch: usize, seq: usize) -> Result<Vec<(String, HostArray)>, Error> {
    let inputs = &model.info().network.inputs;
    inputs.iter().map(|i| Ok((i.name.clone(), example_input(model, i, [batch, seq])?))).collect()
}

fn example_input(model: &Model, input: &InputConfig, any: [usize; 2]) -> Result<HostArray, Error> {
    let shape: Vec<usize> =
        input.shape.iter().enumerate().map(|(n, d)| d.unwrap_or(*any.get(n).unwrap_or(&1))).collect();
    check_size(model, &input.name, &shape)?;
    let count = shape.iter().fold(1u128, |all, &d| all.saturating_mul(d as u128));
    if count > MAX_OUTPUTS {
        let message = format!("of shape {shape:?}, is larger than the {MAX_OUTPUTS} elements that are made up");
        return Err(wrong(&input.name, message));
    }
    let mut next = varied(0);
    let data = if input.ids {
        let ids = id_count(model, &input.name) as u64;
        HostData::Int((0..count).map(|_| (next() % ids) as i64).collect())
    } else {
        HostData::Float((0..count).map(|_| (next() % 20_001) as f32 * 1e-4 - 1.0).collect())
    };
    Ok(HostArray { shape, data })
}

/// A multiplicative sequence (Lehmer); any varied values would do.
fn varied(seed: u64) -> impl FnMut() -> u64 {
    let mut state = 0x2545_F491u64 + seed;
    move || {
        state = state * 48_271 % 0x7fff_ffff;
        state
    }
}

/// The number of ids that every embedding that reads an input has; embeddings may be inside other layers.
fn id_count(model: &Model, input: &str) -> usize {
    fn of(layer: &LayerConfig) -> usize {
        match layer {
            LayerConfig::Embedding(e) => e.input_dim,
            LayerConfig::TimeDistributed(t) => of(&t.layer),
            _ => usize::MAX,
        }
    }
    let reads = |l: &&NamedLayer| l.calls.iter().flatten().any(|v| v.of == input);
    let counts = model.info().network.layers.iter().filter(reads).map(|l| of(&l.layer));
    counts.min().unwrap_or(1).clamp(1, u32::MAX as usize)
}

/// Inputs of the right shapes and types for an ONNX model, the same in every run: open dimensions are the batch and
/// the timesteps, by their names or in this order. `shapes` has the shapes of inputs that the caller knows better.
///
/// # Errors
/// [`Error::Input`] if an input has no shape in the file and none in `shapes`, or is too large.
pub fn example_onnx_inputs(
    model: &OnnxModel,
    batch: usize,
    seq: usize,
    shapes: &[(String, Vec<usize>)],
) -> Result<Vec<(String, HostArray)>, Error> {
    let mut sizes: HashMap<Dim, usize> = HashMap::new();
    let mut all = Vec::new();
    for (n, v) in model.inputs().iter().enumerate() {
        let shape = match shapes.iter().find(|(name, _)| *name == v.name) {
            Some((_, shape)) => shape.clone(),
            None if v.kind.unranked => {
                return Err(wrong(&v.name, "has no shape in the file, so it has to be given".into()));
            }
            None => sized(v, [batch, seq], &mut sizes),
        };
        all.push((v.name.clone(), example_onnx_input(v, shape, n as u64)?));
    }
    Ok(all)
}

/// The shape of an input whose open dimensions are a batch and a length.
fn sized(v: &OnnxValue, [batch, seq]: [usize; 2], sizes: &mut HashMap<Dim, usize>) -> Vec<usize> {
    let mut open = [batch, seq].into_iter();
    let size = |d: &Dim| {
        if let Some(n) = d.size().or_else(|| sizes.get(d).copied()) {
            return n;
        }
        let by_order = open.next().unwrap_or(1);
        let name = d.to_string().to_lowercase();
        let is = |words: &[&str]| words.iter().any(|w| name.contains(w));
        let n = match d {
            Dim::Symbol(_) if is(&["batch"]) || ["n", "b", "bs"].contains(&&name[..]) => batch,
            Dim::Symbol(_) if is(&["seq", "time", "len", "frame"]) || name == "t" => seq,
            _ => by_order,
        };
        if matches!(d, Dim::Symbol(_)) {
            sizes.insert(d.clone(), n);
        }
        n
    };
    v.kind.dims.iter().map(size).collect()
}

fn example_onnx_input(v: &OnnxValue, shape: Vec<usize>, seed: u64) -> Result<HostArray, Error> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
    let count = count.ok_or_else(|| wrong(&v.name, format!("of shape {shape:?}, is too large to be made up")))?;
    let mut next = varied(seed);
    let data = match v.kind.dtype {
        e if e.is_float() => HostData::Float((0..count).map(|_| (next() % 20_001) as f32 * 1e-4 - 1.0).collect()),
        Element::Bool => HostData::Int((0..count).map(|_| (next() % 2) as i64).collect()),
        _ => HostData::Int(vec![1; count]),
    };
    Ok(HostArray { shape, data })
}
