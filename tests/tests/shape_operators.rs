//! Operators that move elements, select them and make shapes, against their truth in f64: with dimensions and numbers
//! that are known before a run, with open ones, and with values of unknown rank; of floats on every device and of
//! whole numbers in host memory; and what they refuse.

use recurve::testing::{Tolerance, compare};
use recurve::{DType, Device, Tensor};
use recurve_graph::{
    Array, Constant, Data, Element, Executor, GraphBuilder, Int, IntArray, Operator, Outputs, RunOptions, ValueType,
    ops,
};
use recurve_tensor::Update;
use recurve_tests::{Random, devices};
use std::sync::Arc;

const I64: Element = Element::Int(Int::I64);

/// An input.
#[derive(Clone, Debug)]
enum In {
    /// Random floats.
    Floats(Vec<usize>),
    /// These floats.
    These(Vec<usize>, Vec<f32>),
    /// Whole numbers in host memory.
    Ints(Vec<usize>, Vec<i64>),
    /// Whole numbers that the device computed.
    Made(Vec<usize>, Vec<i64>),
    /// The same as U32.
    Ids(Vec<usize>, Vec<i64>),
    /// Left out.
    None,
}

use In::{Floats, Ids, Ints, Made, These};

impl In {
    fn kind(&self) -> Element {
        if matches!(self, Floats(..) | These(..)) { Element::F32 } else { I64 }
    }

    fn dims(&self) -> &[usize] {
        match self {
            Floats(d) | These(d, _) | Ints(d, _) | Made(d, _) | Ids(d, _) => d,
            In::None => &[],
        }
    }

    fn array(&self) -> Option<Array> {
        match self {
            Floats(d) => {
                let data = Random(d.iter().sum::<usize>() as u64).floats(d.iter().product(), 1.0);
                Some(Array::new(d, data.into_iter().map(f64::from).collect()))
            }
            These(d, v) => Some(Array::new(d, v.iter().map(|&v| v.into()).collect())),
            Ints(d, v) | Made(d, v) | Ids(d, v) => Some(Array::new(d, v.iter().map(|&v| v as f64).collect())),
            In::None => None,
        }
    }

    fn data(&self, device: &Device) -> Option<Data> {
        let floats = |a: &Array| a.data.iter().map(|&v| v as f32).collect::<Vec<_>>();
        match self {
            In::None => None,
            Ints(d, v) => Some(IntArray::new(d, v.clone()).into()),
            Ids(d, v) => Some(Tensor::from_i64(v, d, device).unwrap().into()),
            _ => {
                let a = self.array().unwrap();
                Some(Tensor::from_f32(&floats(&a), &a.dims, device).unwrap().into())
            }
        }
    }
}

fn numbers(d: &Data) -> Vec<f64> {
    match d {
        Data::Ints(i) => i.data().iter().map(|&v| v as f64).collect(),
        Data::Tensor(t) if t.dtype() == DType::U32 => t.to_vec_u32().unwrap().into_iter().map(f64::from).collect(),
        Data::Tensor(t) => t.to_vec().unwrap().into_iter().map(f64::from).collect(),
    }
}

/// How much is known before a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// Dimensions, and whole numbers in host memory as constants.
    All,
    /// The same without dimensions of other inputs.
    Numbers,
    /// How many dimensions there are.
    Rank,
    Nothing,
}

const KNOWN: [Known; 4] = [Known::All, Known::Numbers, Known::Rank, Known::Nothing];

/// The outputs of one node.
fn outputs(
    operator: &(impl Operator + Clone + 'static),
    inputs: &[In],
    count: usize,
    known: Known,
    device: &Device,
) -> Result<(Outputs, Vec<ValueType>), recurve_graph::Error> {
    let mut g = GraphBuilder::new();
    let (mut names, mut given) = (Vec::new(), Vec::new());
    // Of these the first input says how much is made.
    let made = ["ConstantOfShape", "Range"].contains(&operator.name());
    for (n, input) in inputs.iter().enumerate() {
        let name = if matches!(input, In::None) { String::new() } else { format!("x{n}") };
        match input {
            In::None => {}
            Ints(d, v) if (n > 0 || made) && matches!(known, Known::All | Known::Numbers) => {
                g.constant(&name, d, Constant::Int(Int::I64, v.clone().into()));
            }
            _ => {
                g.input(
                    &name,
                    match known {
                        Known::All => ValueType::new(input.kind(), input.dims().iter().copied()),
                        Known::Nothing => ValueType::unranked(input.kind()),
                        _ => ValueType::new(input.kind(), vec![None; input.dims().len()]),
                    },
                );
                given.push(input.data(device));
            }
        }
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let results: Vec<String> = (0..count).map(|n| format!("y{n}")).collect();
    g.node("node", operator.clone(), &names, &results.iter().map(String::as_str).collect::<Vec<_>>());
    results.iter().for_each(|r| g.output(r, r));
    let graph = g.build()?;
    let kinds = graph.outputs().iter().map(|(_, id)| graph.value(*id).kind.clone()).collect();
    let executor = Executor::new(Arc::new(graph), |_| None, device)?;
    Ok((executor.run_data(&given, &RunOptions::default())?, kinds))
}

/// Holds a node against its truth, with more and less known, on every device.
fn check_many(operator: impl Operator + Clone + 'static, inputs: &[In], count: usize, tolerance: f64) {
    let wide: Vec<_> = inputs.iter().map(In::array).collect();
    let want = operator.reference(&wide.iter().map(Option::as_ref).collect::<Vec<_>>());
    assert_eq!(want.len(), count);
    for known in KNOWN {
        for device in devices() {
            let what = format!("{operator:?} of {inputs:?} with {known:?} known on {device}");
            let (got, kinds) =
                outputs(&operator, inputs, count, known, &device).unwrap_or_else(|e| panic!("{what}: {e}"));
            for ((got, want), kind) in got.iter().zip(&want).zip(&kinds) {
                let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
                assert_eq!(got.dims(), want.dims, "{what}");
                assert!(kind.has_dims(got.dims()), "{what}: {kind}");
                let all: Vec<f32> = numbers(got).into_iter().map(|v| v as f32).collect();
                if want.data.is_empty() {
                    assert!(all.is_empty(), "{what}");
                    continue;
                }
                compare(&all, &want.data, Tolerance::new(tolerance)).unwrap_or_else(|e| panic!("{what}: {e}"));
                if let Some(known) = &kind.known {
                    assert_eq!(known.len(), want.data.len(), "{what}: {kind}");
                    let same = |(k, w): (&Option<i64>, &f64)| k.is_none_or(|k| k as f64 == *w);
                    assert!(known.iter().zip(&want.data).all(same), "{what}: {known:?}");
                }
                if known == Known::All && want.data.len() > 1 {
                    let shape_depends = ["NonZero", "Compress"].contains(&operator.name());
                    let on_device = inputs[1..].iter().any(|i| matches!(i, Made(..) | Ids(..) | These(..)));
                    assert!(kind.shape().is_some() || shape_depends || on_device, "{what}: {kind} is open");
                }
            }
        }
    }
}

fn check(operator: impl Operator + Clone + 'static, inputs: &[In]) {
    check_many(operator, inputs, 1, 0.0);
}

/// The same of floats and of whole numbers.
fn check_both(operator: impl Operator + Clone + 'static, dims: &[usize], rest: &[In]) {
    let count = dims.iter().product::<usize>();
    let ints = Ints(dims.to_vec(), (0..count as i64).map(|i| 3 * i - 7).collect());
    for first in [Floats(dims.to_vec()), ints] {
        check(operator.clone(), &[&[first], rest].concat());
    }
}

fn ints(v: &[i64]) -> In {
    Ints(vec![v.len()], v.to_vec())
}

/// That a node is refused, when it is built or when it runs, with this in the words of the error.
fn refused(operator: impl Operator + Clone + 'static, inputs: &[In], count: usize, words: &str) {
    for known in KNOWN {
        for device in devices() {
            let what = format!("{operator:?} of {inputs:?} with {known:?} known on {device}");
            match outputs(&operator, inputs, count, known, &device) {
                Ok((got, _)) => panic!("{what} gives {got:?}"),
                Err(e) => {
                    use std::error::Error as _;
                    let text = format!("{e} {}", e.source().map(ToString::to_string).unwrap_or_default());
                    assert!(text.contains(words), "{what}: {text}");
                }
            }
        }
    }
}

#[test]
fn shapes() {
    use ops::{Flatten, ReshapeTo, ShapeOf, Size, Squeeze, Unsqueeze};
    for (start, end) in [(0, None), (1, None), (-1, None), (0, Some(-1)), (-9, Some(9)), (2, Some(1)), (0, Some(2))] {
        check_both(ShapeOf { start, end }, &[2, 3, 4], &[]);
    }
    check_both(Size, &[2, 3, 4], &[]);
    check_both(Size, &[], &[]);
    let plain = ReshapeTo { allow_zero: false };
    for shape in [&[4, 6][..], &[-1], &[0, 0, -1], &[0, -1, 2, 2], &[2, 3, 4, 1], &[24, 1, -1]] {
        check_both(plain, &[2, 3, 4], &[ints(shape)]);
    }
    check_both(plain, &[1, 1], &[ints(&[])]);
    check(ReshapeTo { allow_zero: true }, &[Ints(vec![0, 3], vec![]), ints(&[3, 0])]);
    refused(plain, &[Floats(vec![2, 3]), ints(&[4, -1])], 1, "shape");
    refused(plain, &[Floats(vec![2, 3]), ints(&[-1, -1])], 1, "shape");
    refused(plain, &[Floats(vec![2, 3]), ints(&[2, -5])], 1, "shape");
    refused(plain, &[Floats(vec![2, 3]), ints(&[6, 1, 0])], 1, "shape");
    refused(plain, &[Floats(vec![2, 3]), ints(&[i64::MAX, i64::MAX])], 1, "");
    for axis in -3..=3 {
        check_both(Flatten { axis }, &[2, 3, 4], &[]);
    }
    check_both(Flatten { axis: 0 }, &[], &[]);
    refused(Flatten { axis: 4 }, &[Floats(vec![2, 3, 4])], 1, "axis");
    check_both(Squeeze, &[1, 3, 1, 4], &[]);
    check_both(Squeeze, &[1, 3, 1, 4], &[ints(&[-2])]);
    check_both(Squeeze, &[1, 3, 1, 4], &[ints(&[2, 0])]);
    refused(Squeeze, &[Floats(vec![1, 3]), ints(&[1])], 1, "axis 1");
    refused(Squeeze, &[Floats(vec![1, 3]), ints(&[2])], 1, "axis");
    for axes in [&[0][..], &[-1], &[0, 3, -1], &[4, 0, 2]] {
        check_both(Unsqueeze, &[2, 3], &[ints(axes)]);
    }
    check_both(Unsqueeze, &[], &[ints(&[0])]);
    refused(Unsqueeze, &[Floats(vec![2]), ints(&[1, -2])], 1, "axes");
    refused(Unsqueeze, &[Floats(vec![2]), ints(&[3])], 1, "axis");
}

#[test]
fn repetition_and_order() {
    use ops::{Concat, Expand, Tile, Transpose};
    for shape in [&[2, 3, 4][..], &[1, 1], &[5, 2, 3, 4], &[3, 1]] {
        check_both(Expand, &[3, 1], &[ints(&shape[shape.len().saturating_sub(1)..])]);
        check_both(Expand, &[2, 3, 1], &[ints(&[1, 1, 4])]);
        check_both(Expand, &[1, 4], &[ints(&[shape[0], 3, 4])]);
    }
    check_both(Expand, &[], &[ints(&[2, 2])]);
    check(Expand, &[Ints(vec![1], vec![5]), ints(&[0])]);
    refused(Expand, &[Floats(vec![2, 3]), ints(&[4])], 1, "broadcast");
    refused(Expand, &[Floats(vec![1]), ints(&[0])], 1, "");
    refused(Expand, &[Floats(vec![1]), ints(&[-2])], 1, "");
    for repeats in [[1, 1, 1], [2, 1, 3], [1, 4, 1], [3, 2, 2]] {
        check_both(Tile, &[2, 3, 2], &[ints(&repeats)]);
    }
    check(Tile, &[Ints(vec![2], vec![1, 2]), ints(&[0])]);
    refused(Tile, &[Floats(vec![2]), ints(&[1, 2])], 1, "repeats");
    refused(Tile, &[Floats(vec![2]), ints(&[-1])], 1, "repeats");
    refused(Tile, &[Floats(vec![2, 2]), ints(&[i64::MAX, i64::MAX])], 1, "");
    for axes in [vec![2, 0, 1], vec![0, 2, 1], vec![2, 1, 0], vec![]] {
        check_both(Transpose(axes), &[2, 3, 4], &[]);
    }
    check_both(Transpose(vec![]), &[], &[]);
    check_both(Transpose(vec![1, 0]), &[1, 5], &[]);
    refused(Transpose(vec![1, 1]), &[Floats(vec![2, 3])], 1, "axes");
    for axis in -3..3 {
        check(Concat { axis }, &[Floats(vec![2, 3, 4]), Floats(vec![2, 3, 4]), Floats(vec![2, 3, 4])]);
    }
    check(Concat { axis: -1 }, &[Floats(vec![2, 1]), Floats(vec![2, 5])]);
    check(Concat { axis: 0 }, &[ints(&[1, 2]), ints(&[]), ints(&[3])]);
    check(Concat { axis: 1 }, &[Ints(vec![2, 1], vec![1, 2]), Ints(vec![2, 2], vec![3, 4, 5, 6])]);
    // Whole numbers of the host and of the device.
    check(Concat { axis: 0 }, &[ints(&[1, 2]), Made(vec![1], vec![-3]), ints(&[])]);
    refused(Concat { axis: 0 }, &[Floats(vec![2, 3]), Floats(vec![2, 4])], 1, "");
    refused(Concat { axis: 2 }, &[Floats(vec![2, 3])], 1, "axis");
}

#[test]
fn parts() {
    use ops::{SliceBy, Split};
    let none = || In::None;
    for (starts, ends, axes, steps) in [
        (vec![0, 1], vec![2, i64::MAX], none(), none()),
        (vec![-2], vec![i64::MAX], ints(&[-1]), none()),
        (vec![-1], vec![i64::MIN], ints(&[1]), ints(&[-1])),
        (vec![20, 1], vec![-20, 9], ints(&[2, 0]), ints(&[-2, 1])),
        (vec![0, 0, 0], vec![3, 4, 5], none(), ints(&[2, 3, 4])),
        (vec![3, 4], vec![0, 1], ints(&[1, 2]), ints(&[-2, -3])),
        (vec![0], vec![i64::from(i32::MAX)], ints(&[0]), ints(&[1])),
    ] {
        let n = starts.len();
        check_both(SliceBy, &[3, 4, 5], &[Ints(vec![n], starts), Ints(vec![n], ends), axes, steps]);
    }
    check(SliceBy, &[ints(&[1, 2, 3]), ints(&[2]), ints(&[1])]);
    refused(SliceBy, &[Floats(vec![3]), ints(&[2]), ints(&[1])], 1, "");
    refused(SliceBy, &[Floats(vec![3]), ints(&[0]), ints(&[1]), ints(&[0]), ints(&[0])], 1, "steps");
    refused(SliceBy, &[Floats(vec![3]), ints(&[0]), ints(&[1]), ints(&[1])], 1, "axis");
    refused(SliceBy, &[Floats(vec![3]), ints(&[0, 0]), ints(&[1])], 1, "");
    for axis in [-1, 0, 1] {
        check_many(Split { axis, parts: 2 }, &[Floats(vec![4, 6])], 2, 0.0);
        check_many(Split { axis, parts: 2 }, &[Ints(vec![4, 4], (0..16).collect()), ints(&[1, 3])], 2, 0.0);
    }
    check_many(Split { axis: 0, parts: 4 }, &[Floats(vec![7])], 4, 0.0);
    check_many(Split { axis: 0, parts: 3 }, &[ints(&[1, 2]), ints(&[0, 2, 0])], 3, 0.0);
    refused(Split { axis: 0, parts: 2 }, &[Floats(vec![4]), ints(&[1, 2])], 2, "split");
    refused(Split { axis: 0, parts: 2 }, &[Floats(vec![4]), ints(&[5, -1])], 2, "split");
}

#[test]
fn padding() {
    use ops::{Pad, PadMode};
    for mode in [PadMode::Constant(2.0), PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        for pads in [[0, 1, 2, 0], [1, 2, 1, 3], [0, 0, 0, 0], [0, 3, 0, 5], [-1, 0, 1, 2], [2, -1, -1, -2]] {
            check_both(Pad(mode), &[3, 4], &[ints(&pads)]);
        }
        check_both(Pad(mode), &[3, 4, 2], &[ints(&[2, 3]), In::None, ints(&[-2])]);
        check_both(Pad(mode), &[1, 3], &[ints(&[2, 1, 1, 1])]);
        refused(Pad(mode), &[Floats(vec![2]), ints(&[-1, -1])], 1, "");
        refused(Pad(mode), &[Floats(vec![2]), ints(&[-3, 4])], 1, "pads");
        refused(Pad(mode), &[Floats(vec![2]), ints(&[1])], 1, "pads");
        for far in [i64::MAX, 1 << 56, 1 << 40] {
            refused(Pad(mode), &[Floats(vec![2]), ints(&[far, far])], 1, "");
        }
    }
    let value = These(vec![], vec![-1.5]);
    check(Pad(PadMode::Constant(0.0)), &[Floats(vec![2, 2]), ints(&[1, 0, 0, 1]), value]);
    check(Pad(PadMode::Constant(0.0)), &[ints(&[4, 5]), ints(&[1, 1]), Ints(vec![], vec![i64::from(i32::MIN)])]);
}

/// Indices in host memory, and those that a device made.
fn index_forms(dims: &[usize], v: &[i64]) -> Vec<In> {
    let mut all = vec![Ints(dims.to_vec(), v.to_vec()), Made(dims.to_vec(), v.to_vec())];
    if v.iter().all(|&i| i >= 0) {
        all.push(Ids(dims.to_vec(), v.to_vec()));
    }
    all
}

#[test]
fn look_ups() {
    use ops::{GatherAt, GatherElements, GatherTuples};
    for axis in [0, 1, 2, -1] {
        for (dims, v) in
            [(&[][..], &[1][..]), (&[3], &[0, 1, 2]), (&[2], &[2, 0]), (&[2, 2], &[0, -1, 1, 0]), (&[4], &[1, 1, 1, 1])]
        {
            for indices in index_forms(dims, v) {
                check_both(GatherAt { axis }, &[3, 3, 4], &[indices]);
            }
        }
    }
    check(GatherAt { axis: 0 }, &[ints(&[4, 5, 6]), ints(&[])]);
    refused(GatherAt { axis: 0 }, &[Floats(vec![3]), ints(&[3])], 1, "indices");
    refused(GatherAt { axis: 0 }, &[Floats(vec![3]), ints(&[0, -4])], 1, "indices");
    refused(GatherAt { axis: 1 }, &[Floats(vec![3]), ints(&[0])], 1, "axis");
    for (axis, dims, v) in [(0, [2, 2], [0, -1, 2, 1]), (1, [3, 1], [3, 0, -2, 0]), (-1, [1, 4], [0, 0, 3, 1])] {
        for indices in index_forms(&dims, &v[..dims[0] * dims[1]]) {
            check_both(GatherElements { axis }, &[3, 4], &[indices]);
        }
    }
    refused(GatherElements { axis: 0 }, &[Floats(vec![3, 2]), Ints(vec![1, 3], vec![0; 3])], 1, "");
    for (batch_dims, dims, v) in [
        (0, &[2, 2][..], &[0, 1, 2, -1][..]),
        (0, &[2, 1], &[1, 0]),
        (0, &[1, 1, 3], &[2, 3, 1]),
        (1, &[3, 1], &[0, 3, 2]),
        (1, &[3, 2, 2], &[0, 1, 1, 0, 3, 1, 2, 0, 0, 0, 1, 1]),
        (2, &[3, 4, 1], &[0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1]),
    ] {
        for indices in index_forms(dims, v) {
            check_both(GatherTuples { batch_dims }, &[3, 4, 2], &[indices]);
        }
    }
    refused(GatherTuples { batch_dims: 0 }, &[Floats(vec![3]), Ints(vec![1, 2], vec![0, 0])], 1, "");
    // On a device what is outside is no number.
    for device in devices() {
        let indices = Made(vec![4], vec![3, -4, 1 << 30, -3]);
        let (got, _) =
            outputs(&ops::GatherAt { axis: 0 }, &[Floats(vec![3, 2]), indices], 1, Known::Rank, &device).unwrap();
        let got = numbers(got[0].as_ref().unwrap());
        assert!(got[..6].iter().all(|v| v.is_nan()) && got[6..].iter().all(|v| !v.is_nan()), "{got:?} on {device}");
    }
}

#[test]
fn updates() {
    use ops::{ScatterElements, ScatterTuples};
    let int = Some(Int::I64);
    for update in [Update::Replace, Update::Add, Update::Mul, Update::Max, Update::Min] {
        // Replacing the same element twice is left open by ONNX, but the last one wins here.
        for (axis, dims, v) in [(0, [2, 3], [0, 3, -1, 0, 1, 1]), (1, [3, 2], [0, 2, -1, -1, 1, 0])] {
            for indices in index_forms(&dims, &v) {
                let op = ScatterElements { axis, update, int };
                check_many(op, &[Floats(vec![4, 3]), indices.clone(), Floats(dims.to_vec())], 1, 1e-6);
                let x = Ints(vec![4, 3], (0..12).collect());
                check(op, &[x, indices, Ints(dims.to_vec(), vec![5, -6, 7, 8, -9, 10])]);
            }
        }
        for (dims, v, slice) in [
            (&[2, 1][..], &[0, 3][..], &[2, 3, 2][..]),
            (&[3, 2], &[0, 1, 3, -1, 0, 1], &[3, 2]),
            (&[1, 2, 3], &[1, 1, 1, 2, 0, 1], &[1, 2]),
        ] {
            for indices in index_forms(dims, v) {
                let op = ScatterTuples::new(update, int);
                check_many(op, &[Floats(vec![4, 3, 2]), indices.clone(), Floats(slice.to_vec())], 1, 1e-6);
                let n = slice.iter().product::<usize>() as i64;
                let x = Ints(vec![4, 3, 2], (0..24).collect());
                check(op, &[x, indices, Ints(slice.to_vec(), (0..n).map(|i| 20 - 3 * i).collect())]);
            }
        }
    }
    let op = ScatterTuples::new(Update::Replace, None);
    refused(op, &[Floats(vec![3]), Ints(vec![1, 1], vec![3]), Floats(vec![1])], 1, "indices");
    refused(op, &[Floats(vec![3]), Ints(vec![1, 1], vec![0]), Floats(vec![2])], 1, "updates");
    refused(op, &[Floats(vec![3]), Ints(vec![1, 2], vec![0, 0]), Floats(vec![1])], 1, "");
    // Neighbours that become rows: all of the data in order, a part of it, twice the same, in another order.
    for v in [vec![0, 1, 2, 3, 4, 5], vec![2, 3], vec![2, 3, 2, 3], vec![4, 5, 0, 1], vec![1, 2, 3, 4], vec![5, 4]] {
        for update in [Update::Replace, Update::Add] {
            let (n, tuples) = (v.len(), v.iter().flat_map(|i| [i / 2, i % 2]).collect::<Vec<i64>>());
            let inputs = [Floats(vec![3, 2, 3]), Ints(vec![n, 2], tuples), Floats(vec![n, 3])];
            check(ScatterTuples::new(update, None), &inputs);
        }
    }
    // Whole numbers wrap as their type does.
    let op = ScatterElements { axis: 0, update: Update::Add, int: Some(Int::I8) };
    let (got, _) = outputs(&op, &[ints(&[127, 1]), ints(&[0]), ints(&[1])], 1, Known::All, &Device::Cpu).unwrap();
    assert_eq!(numbers(got[0].as_ref().unwrap()), [-128.0, 1.0]);
}

#[test]
fn made_values() {
    use ops::{ConstantOfShape, EyeLike, Range};
    let ones = ConstantOfShape { dtype: Element::F32, float: 1.5, int: 0 };
    check(ones, &[ints(&[2, 3])]);
    check(ones, &[ints(&[])]);
    let zeros = ConstantOfShape { dtype: I64, float: 0.0, int: 7 };
    check(zeros, &[ints(&[2, 3])]);
    check(zeros, &[ints(&[0])]);
    refused(ones, &[ints(&[0])], 1, "");
    refused(ones, &[ints(&[-1])], 1, "shape");
    refused(ones, &[ints(&[1 << 40, 1 << 40])], 1, "");
    refused(zeros, &[ints(&[1 << 40])], 1, "");
    refused(ops::Tile, &[ints(&[1, 2]), ints(&[1 << 40])], 1, "");
    refused(ops::Expand, &[ints(&[1]), ints(&[1 << 40])], 1, "");
    let scalar = |v: i64| Ints(vec![], vec![v]);
    for (start, limit, delta) in [(1, 5, 2), (10, 6, -3), (0, 5, 1), (3, 3, 1), (5, 3, 1)] {
        check(Range, &[scalar(start), scalar(limit), scalar(delta)]);
    }
    refused(Range, &[scalar(0), scalar(5), scalar(0)], 1, "delta");
    refused(Range, &[scalar(i64::MIN), scalar(i64::MAX), scalar(1)], 1, "limit");
    let float = |v: f32| These(vec![], vec![v]);
    check(Range, &[float(1.0), float(5.0), float(2.0)]);
    check_many(Range, &[float(0.5), float(-1.0), float(-0.25)], 1, 1e-6);
    refused(Range, &[float(0.0), float(5.0), float(0.0)], 1, "delta");
    refused(Range, &[float(0.0), float(-5.0), float(1.0)], 1, "");
    for k in [0, 1, -2, i64::MAX] {
        check(EyeLike { k, dtype: None }, &[Floats(vec![3, 4])]);
        check(EyeLike { k, dtype: Some(I64) }, &[Floats(vec![3, 4])]);
        check(EyeLike { k, dtype: Some(Element::F32) }, &[Ints(vec![2, 3], vec![0; 6])]);
    }
    refused(EyeLike { k: 0, dtype: None }, &[Floats(vec![3])], 1, "");
}

#[test]
fn triangles_blocks_and_sequences() {
    use ops::{BlockOrder, DepthToSpace, ReverseSequence, SpaceToDepth, Trilu};
    for upper in [true, false] {
        check_both(Trilu { upper }, &[3, 4], &[]);
        for k in [0, 1, -2, 9, i64::MIN] {
            check_both(Trilu { upper }, &[2, 4, 3], &[Ints(vec![], vec![k])]);
        }
        refused(Trilu { upper }, &[Floats(vec![3])], 1, "");
    }
    for order in [BlockOrder::BlockFirst, BlockOrder::ChannelFirst] {
        check_both(DepthToSpace { block: 2, order }, &[2, 8, 2, 3], &[]);
        check_both(SpaceToDepth { block: 2, order }, &[2, 3, 4, 6], &[]);
        refused(DepthToSpace { block: 2, order }, &[Floats(vec![1, 6, 2, 2])], 1, "blocksize");
        refused(SpaceToDepth { block: 2, order }, &[Floats(vec![1, 1, 3, 2])], 1, "blocksize");
        refused(SpaceToDepth { block: 0, order }, &[Floats(vec![1, 1, 2, 2])], 1, "blocksize");
        refused(DepthToSpace { block: usize::MAX, order }, &[Floats(vec![1, 4, 2, 2])], 1, "blocksize");
        refused(DepthToSpace { block: 2, order }, &[Floats(vec![4, 2, 2])], 1, "");
    }
    for (time_major, lengths) in [(true, &[4, 0, 2][..]), (false, &[3, 1, 2, 0])] {
        for lengths in index_forms(&[lengths.len()], lengths) {
            check_both(ReverseSequence { time_major }, &[4, 3, 2], &[lengths]);
        }
        refused(ReverseSequence { time_major }, &[Floats(vec![2, 2]), ints(&[3, 1])], 1, "sequence_lens");
        refused(ReverseSequence { time_major }, &[Floats(vec![2, 2]), ints(&[1])], 1, "sequence_lens");
    }
}

#[test]
fn what_depends_on_values() {
    use ops::{Compress, NonZero, OneHot};
    for condition in index_forms(&[3], &[0, 1, 1]) {
        for axis in [Some(1), Some(-2), None] {
            check_both(Compress { axis }, &[2, 3, 2], std::slice::from_ref(&condition));
        }
    }
    check(Compress { axis: None }, &[ints(&[1, 2]), ints(&[0, 0])]);
    refused(Compress { axis: Some(0) }, &[Floats(vec![2]), ints(&[0, 0, 1])], 1, "condition");
    check_both(NonZero, &[2, 3], &[]);
    check(NonZero, &[These(vec![2, 2, 2], vec![0.0, 1.0, f32::NAN, 0.0, -0.0, 2.0, 0.0, 3.0])]);
    check(NonZero, &[Ints(vec![], vec![5])]);
    check(NonZero, &[ints(&[0, 0])]);
    for axis in [-1, 0, 1] {
        for indices in
            index_forms(&[2, 3], &[0, 3, 1, 2, 9, 0]).into_iter().chain(index_forms(&[2, 3], &[-1, -9, 4, 0, 1, -4]))
        {
            let depth = Ints(vec![], vec![4]);
            check(OneHot { axis }, &[indices.clone(), depth.clone(), These(vec![2], vec![-1.0, 2.5])]);
            check(OneHot { axis }, &[indices, depth, ints(&[7, 8])]);
        }
    }
    refused(OneHot { axis: 3 }, &[ints(&[0]), ints(&[2]), ints(&[0, 1])], 1, "axis");
    refused(OneHot { axis: 0 }, &[ints(&[0]), ints(&[-2]), ints(&[0, 1])], 1, "depth");
    refused(OneHot { axis: 0 }, &[ints(&[0]), ints(&[1 << 62]), ints(&[0, 1])], 1, "");
    refused(OneHot { axis: 0 }, &[ints(&[0]), ints(&[2]), ints(&[0])], 1, "");
}

#[test]
fn sums_and_ranks() {
    use ops::{ArgExtreme, CumSum, TopK};
    use recurve_tensor::Extreme;
    for axis in [0, 1, -1] {
        for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
            let op = CumSum { exclusive, reverse, int: Some(Int::I64) };
            check_many(op, &[Floats(vec![2, 5, 3]), ints(&[axis])], 1, 1e-6);
            check(op, &[Ints(vec![2, 2, 3], (1..13).collect()), Ints(vec![], vec![axis])]);
        }
        for largest in [true, false] {
            for k in [1, 2] {
                let equal = These(vec![2, 3, 2], vec![1.0, 2.0, 1.0, 2.0, 0.0, 1.0, -3.0, -3.0, -3.0, -3.0, 5.0, -3.0]);
                check_many(TopK { axis, largest }, &[equal, ints(&[k])], 2, 0.0);
                check_many(TopK { axis, largest }, &[Floats(vec![3, 4, 5]), ints(&[k])], 2, 0.0);
                check_many(
                    TopK { axis, largest },
                    &[Ints(vec![2, 2, 2], vec![1, 1, 2, 0, 2, 2, 0, 5]), ints(&[k])],
                    2,
                    0.0,
                );
            }
            for (last, keep) in [(false, true), (true, false)] {
                let op = ArgExtreme { axis, which: Extreme { smallest: !largest, last }, keep };
                let equal = vec![1.0, 2.0, 1.0, 2.0, 0.0, 1.0, -3.0, -3.0, -3.0, -3.0, 5.0, -3.0];
                check(op, &[These(vec![2, 3, 2], equal.clone())]);
                check(op, &[Ints(vec![2, 3, 2], equal.iter().map(|&v| v as i64).collect())]);
                check(op, &[Floats(vec![2, 150, 3])]);
            }
        }
    }
    refused(TopK { axis: 0, largest: true }, &[Floats(vec![3]), ints(&[4])], 2, "k");
    refused(TopK { axis: 0, largest: true }, &[Floats(vec![3]), ints(&[-1])], 2, "k");
    refused(TopK { axis: 1, largest: true }, &[Floats(vec![3]), ints(&[1])], 2, "axis");
}

#[test]
fn other_sizes() {
    use ops::{Coordinates, Interpolation, Nearest, Policy, Resize};
    let plain = Resize {
        interpolation: Interpolation::Linear,
        coordinates: Coordinates::HalfPixel,
        axes: None,
        scales: None,
        region: None,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
        policy: Policy::Stretch,
    };
    let nearest =
        [Nearest::PreferFloor, Nearest::PreferCeil, Nearest::Floor, Nearest::Ceil].map(Interpolation::Nearest);
    for interpolation in [Interpolation::Linear, Interpolation::Cubic(-0.75)].into_iter().chain(nearest) {
        let op = Resize { interpolation, ..plain.clone() };
        check_many(op.clone(), &[Floats(vec![2, 3, 4]), ints(&[2, 5, 3])], 1, 1e-5);
        let scaled = Resize { scales: Some(vec![1.5, 0.6]), axes: Some(vec![-1, 1]), ..op.clone() };
        check_many(scaled, &[Floats(vec![2, 5, 4])], 1, 1e-5);
        let crop = Resize { coordinates: Coordinates::CropAndResize, extrapolation: 9.0, ..op };
        let crop = Resize { region: Some(vec![-0.2, 0.3, 1.1, 0.8]), ..crop };
        check_many(crop, &[Floats(vec![4, 6]), ints(&[5, 4])], 1, 1e-5);
    }
    let ratio = Resize { policy: Policy::NotLarger, interpolation: nearest[0], ..plain.clone() };
    check_both(ratio, &[2, 4], &[ints(&[5, 7])]);
    let computed = [Floats(vec![2, 4]), In::None, These(vec![2], vec![2.0, 0.5])];
    check_many(Resize { antialias: true, exclude_outside: true, ..plain.clone() }, &computed, 1, 1e-5);
    refused(plain.clone(), &[Floats(vec![2]), ints(&[0])], 1, "");
    refused(plain.clone(), &[Floats(vec![2]), ints(&[i64::MAX])], 1, "");
    refused(plain, &[Floats(vec![2]), ints(&[1, 2])], 1, "sizes");
}

/// With a batch that is open the shapes behind it are known.
#[test]
fn shapes_with_an_open_batch() {
    let mut g = GraphBuilder::new();
    let dims = [recurve_graph::Dim::symbol("batch"), 6.into(), 4.into()];
    g.input("x", ValueType::new(Element::F32, dims));
    let int = |g: &mut GraphBuilder, name: &str, v: &[i64]| {
        g.constant(name, &[v.len()], Constant::Int(Int::I64, v.into()));
    };
    int(&mut g, "zero", &[0]);
    int(&mut g, "rest", &[2, -1]);
    int(&mut g, "kept", &[0, 0, 2, -1]);
    g.node("shape", ops::ShapeOf::default(), &["x"], &["s"]);
    g.node("gather", ops::GatherAt { axis: 0 }, &["s", "zero"], &["b"]);
    g.node("concat", ops::Concat { axis: 0 }, &["b", "rest"], &["t"]);
    g.node("reshape", ops::ReshapeTo::default(), &["x", "t"], &["y"]);
    g.node("reshape0", ops::ReshapeTo::default(), &["x", "kept"], &["z"]);
    g.output("y", "y");
    g.output("z", "z");
    let graph = g.build_folded().unwrap();
    let kind = |name: &str| graph.value(graph.find(name).unwrap()).kind.to_string();
    assert_eq!(kind("y"), "f32 [?, 2, ?]");
    assert_eq!(kind("z"), "f32 [batch, 6, 2, 2]");
    let executor = Executor::new(Arc::new(graph), |_| None, &Device::Cpu).unwrap();
    let x = Tensor::zeros(&[5, 6, 4], DType::F32, &Device::Cpu).unwrap();
    let got = executor.run(&[Some(&x)], &RunOptions::default()).unwrap();
    assert_eq!(got[0].as_ref().unwrap().dims(), [5, 2, 12]);
    assert_eq!(got[1].as_ref().unwrap().dims(), [5, 6, 2, 2]);
}
