//! Elementwise operators of graphs: whole numbers in host memory and on a device, types and what they know, what is
//! refused.

use recurve::{Device, Tensor};
use recurve_graph::ops::{AllTrue, Binary, Cast, Map, Target, Where, Whole};
use recurve_graph::{
    Array, Data, Dim, Element, Error, Executor, Graph, GraphBuilder, Int, IntArray, Operator, RunOptions, ValueType,
};
use recurve_tensor::Function;
use recurve_tests::devices;
use std::sync::Arc;

/// A graph of one node.
fn one(operator: impl Operator + 'static, inputs: &[ValueType]) -> Result<Graph, Error> {
    let mut g = GraphBuilder::new();
    let names: Vec<String> = (0..inputs.len()).map(|n| format!("x{n}")).collect();
    names.iter().zip(inputs).for_each(|(n, t)| g.input(n, t.clone()));
    g.node("node", operator, &names.iter().map(String::as_str).collect::<Vec<_>>(), &["y"]);
    g.output("y", "y");
    g.build()
}

fn run(graph: Graph, device: &Device, inputs: &[Data]) -> Result<Data, Error> {
    let executor = Executor::new(Arc::new(graph), |_| None, device).unwrap();
    let inputs: Vec<_> = inputs.iter().cloned().map(Some).collect();
    Ok(executor.run_data(&inputs, &RunOptions::default())?[0].clone().unwrap())
}

fn kind(element: Element, dims: &[Option<usize>]) -> ValueType {
    ValueType::new(element, dims.iter().copied())
}

fn ints(v: &[i64]) -> Data {
    IntArray::vector(v).into()
}

fn whole(operation: Binary, int: Int) -> Whole {
    Whole { operation, element: Element::Int(int) }
}

#[test]
fn whole_numbers_are_exact_and_wrap_as_their_type_does() {
    const BIG: i64 = (1 << 53) + 1;
    for (operation, int, a, b, want) in [
        (Binary::Add, Int::I64, vec![BIG, i64::MAX], vec![1, 1], vec![BIG + 1, i64::MIN]),
        (Binary::Add, Int::I8, vec![127, -128], vec![1, -1], vec![-128, 127]),
        (Binary::Sub, Int::U8, vec![0, 5], vec![1], vec![255, 4]),
        (Binary::Mul, Int::I32, vec![1 << 20], vec![1 << 20, 3], vec![0, 3 << 20]),
        (Binary::Div, Int::I32, vec![7, -7, 7, -7], vec![2, 2, -2, -2], vec![3, -3, -3, 3]),
        (Binary::Div, Int::I64, vec![i64::MIN], vec![-1], vec![i64::MIN]),
        (Binary::Div, Int::U64, vec![-1], vec![2], vec![i64::MAX]),
        (Binary::Modulo, Int::I32, vec![7, -7, 7, -7], vec![3, 3, -3, -3], vec![1, 2, -2, -1]),
        (Binary::Remainder, Int::I32, vec![7, -7, 7, -7], vec![3, 3, -3, -3], vec![1, -1, 1, -1]),
        (Binary::Pow, Int::I64, vec![3, -2, 2, 1, -1, -1], vec![3, 3, -1, -5, -3, -4], vec![27, -8, 0, 1, -1, 1]),
        (Binary::Max, Int::U64, vec![-1, 3], vec![5, 4], vec![-1, 4]),
        (Binary::Min, Int::I64, vec![-1, 3], vec![5, 4], vec![-1, 3]),
        (Binary::Less, Int::U64, vec![-1, 3], vec![5, 4], vec![0, 1]),
        (Binary::Less, Int::I64, vec![BIG, -1], vec![BIG + 1, -1], vec![1, 0]),
        (Binary::GreaterOrEqual, Int::I64, vec![BIG, -1], vec![BIG + 1, -1], vec![0, 1]),
        (Binary::Equal, Int::I64, vec![BIG, -1], vec![BIG - 1, -1], vec![0, 1]),
        (Binary::BitAnd, Int::U8, vec![0b1100], vec![0b1010], vec![0b1000]),
        (Binary::BitXor, Int::I32, vec![5], vec![-1], vec![-6]),
        (Binary::ShiftLeft, Int::U8, vec![255, 1, 1], vec![1, 7, 8], vec![254, 128, 0]),
        (Binary::ShiftLeft, Int::I8, vec![64, 1], vec![1, -1], vec![-128, 0]),
        (Binary::ShiftRight, Int::I32, vec![-8, -8, 8], vec![1, 32, 32], vec![-4, -1, 0]),
        (Binary::ShiftRight, Int::U64, vec![-1], vec![63], vec![1]),
    ] {
        let element = Element::Int(int);
        let operator = whole(operation, int);
        let graph = one(operator, &[kind(element, &[None]), kind(element, &[None])]).unwrap();
        let got = run(graph, &Device::Cpu, &[ints(&a), ints(&b)]).unwrap();
        let Data::Ints(got) = got else { panic!("{operation:?} of {int:?} leaves host memory") };
        assert_eq!(got.data(), want, "{operation:?} of {int:?}");
        // The same is known of types before a run.
        let known = |v: &[i64]| {
            kind(element, &[Some(v.len())]).with_known(Some(v.iter().copied().map(Some).collect::<Vec<_>>()))
        };
        let (a, b) = (known(&a), known(&b));
        let types = operator.output_types(&[Some(&a), Some(&b)]).unwrap();
        assert_eq!(types[0].content().as_deref(), Some(&want[..]), "{operation:?} of {int:?}");
    }
}

/// What a device computed stays there, and is right as far as f32 is exact.
#[test]
fn whole_numbers_on_devices() {
    for device in devices() {
        for (operation, int, want) in [
            (Binary::Add, Int::I64, [9.0, -5.0, 250.0]),
            (Binary::Add, Int::U8, [9.0, 251.0, 250.0]),
            (Binary::Add, Int::I8, [9.0, -5.0, -6.0]),
            (Binary::Div, Int::I64, [3.0, -3.0, 24.0]),
            (Binary::Modulo, Int::I64, [1.0, 1.0, 10.0]),
            (Binary::Remainder, Int::I64, [1.0, -1.0, 10.0]),
            (Binary::Greater, Int::I64, [1.0, 0.0, 1.0]),
            (Binary::Equal, Int::I64, [0.0, 0.0, 0.0]),
        ] {
            let element = Element::Int(int);
            let graph = one(whole(operation, int), &[kind(element, &[None]), kind(element, &[None])]).unwrap();
            let a: Data = Tensor::from_f32(&[7.0, -7.0, 240.0], &[3], &device).unwrap().into();
            let b = if matches!(want[2], 250.0 | -6.0 | 24.0) { ints(&[2, 2, 10]) } else { ints(&[2, 2, 23]) };
            let Data::Tensor(got) = run(graph, &device, &[a, b]).unwrap() else { panic!("{operation:?}: host memory") };
            assert_eq!(got.to_vec().unwrap(), want, "{operation:?} of {int:?} on {device}");
        }
        // Ids, and bits, for which the device is read.
        let element = Element::Int(Int::I64);
        let graph = one(whole(Binary::BitOr, Int::I64), &[kind(element, &[None]), kind(element, &[None])]).unwrap();
        let ids: Data = Tensor::from_u32(&[5, 8], &[2], &device).unwrap().into();
        let got = run(graph, &device, &[ids.clone(), ints(&[2])]).unwrap();
        assert_eq!(got.to_ints().unwrap().data(), [7, 10]);
        let graph = one(whole(Binary::Mul, Int::I64), &[kind(element, &[None]), kind(element, &[None])]).unwrap();
        let got = run(graph, &device, &[ids, ints(&[2])]).unwrap();
        assert_eq!(got.to_ints().unwrap().data(), [10, 16]);
    }
}

#[test]
fn casts() {
    let from = |element: Element, to: Target| one(Cast { from: element, to }, &[kind(element, &[None])]).unwrap();
    let int = |i: Int| Element::Int(i);
    for device in devices() {
        let floats: Data = Tensor::from_f32(&[1.9, -1.9, 300.5, 0.0, f32::NAN], &[5], &device).unwrap().into();
        for (to, want) in [
            (Target::Int(Int::I64), [1.0, -1.0, 300.0, 0.0, i64::MIN as f32]),
            (Target::Int(Int::U8), [1.0, 255.0, 44.0, 0.0, 0.0]),
            (Target::Int(Int::I8), [1.0, -1.0, 44.0, 0.0, 0.0]),
            (Target::Bool, [1.0, 1.0, 1.0, 0.0, 1.0]),
        ] {
            let got = run(from(Element::F32, to), &device, std::slice::from_ref(&floats)).unwrap();
            assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), want, "{to:?} on {device}");
        }
        let got = run(from(int(Int::I64), Target::F32), &device, &[ints(&[(1 << 24) + 1, -3])]).unwrap();
        assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), [16_777_216.0, -3.0], "rounded, not refused");
        let got = run(from(int(Int::I64), Target::F16), &device, &[ints(&[2049, 70_000])]).unwrap();
        assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), [2048.0, f32::INFINITY]);
        let got = run(from(int(Int::U64), Target::F32), &device, &[ints(&[-1])]).unwrap();
        assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), [18_446_744_073_709_551_616.0]);
        let got = run(from(int(Int::I64), Target::Int(Int::I8)), &device, &[ints(&[200, -129])]).unwrap();
        assert_eq!(got.to_ints().unwrap().data(), [-56, 127]);
        let got = run(from(int(Int::I64), Target::Bool), &device, &[ints(&[200, 0])]).unwrap();
        assert_eq!(got.to_ints().unwrap().data(), [1, 0]);
        // Ids stay ids where they can.
        let ids: Data = Tensor::from_u32(&[16_777_217, 5], &[2], &device).unwrap().into();
        let got = run(from(int(Int::I64), Target::Int(Int::I32)), &device, std::slice::from_ref(&ids)).unwrap();
        assert_eq!(got.as_tensor().unwrap().to_vec_u32().unwrap(), [16_777_217, 5]);
        let got = run(from(int(Int::I64), Target::Int(Int::U8)), &device, &[ids]).unwrap();
        assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), [0.0, 5.0], "16777217 is no f32");
        // Whole numbers that a device holds get the range of the new type.
        let held: Data = Tensor::from_f32(&[300.0, -1.0], &[2], &device).unwrap().into();
        let got = run(from(int(Int::I64), Target::Int(Int::U8)), &device, &[held]).unwrap();
        assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), [44.0, 255.0]);
    }
    // Floats become none in host memory.
    let e = run(from(int(Int::I64), Target::F32), &Device::Cpu, &[ints(&[])]).unwrap_err().to_string();
    assert!(e.contains("`node`") && e.contains("no elements"), "{e}");
}

#[test]
fn choices() {
    let int = Element::Int(Int::I64);
    for device in devices() {
        let graph = || one(Where, &[kind(Element::Bool, &[None, None]), kind(int, &[None]), kind(int, &[])]).unwrap();
        let condition: Data = IntArray::new(&[2, 1], [1, 0]).into();
        let got = run(graph(), &device, &[condition, ints(&[1 << 60, 2]), IntArray::scalar(7).into()]).unwrap();
        let Data::Ints(got) = got else { panic!("leaves host memory") };
        assert_eq!((got.dims(), got.data()), (&[2, 2][..], &[1 << 60, 2, 7, 7][..]));
        let condition: Data = Tensor::from_f32(&[1.0, 0.0], &[2, 1], &device).unwrap().into();
        let got = run(graph(), &device, &[condition, ints(&[3, 2]), IntArray::scalar(7).into()]).unwrap();
        assert_eq!(got.as_tensor().unwrap().to_vec().unwrap(), [3.0, 2.0, 7.0, 7.0]);
    }
    let known = |element: Element, v: &[Option<i64>]| kind(element, &[Some(v.len())]).with_known(Some(v.to_vec()));
    let c = known(Element::Bool, &[Some(1), Some(0), None, None]);
    let x = known(int, &[Some(1), Some(2), Some(3), Some(4)]);
    let y = known(int, &[None, Some(5), Some(3), Some(6)]);
    let types = Where.output_types(&[Some(&c), Some(&x), Some(&y)]).unwrap();
    assert_eq!(types[0].known.as_deref(), Some(&[Some(1), Some(5), Some(3), None][..]));
}

#[test]
fn functions_of_whole_numbers() {
    for (function, int, x, want) in [
        (Function::Abs, Int::I8, vec![-128, 5, -5], vec![-128, 5, 5]),
        (Function::Neg, Int::I64, vec![i64::MIN, 5], vec![i64::MIN, -5]),
        (Function::Sign, Int::I32, vec![-9, 0, 4], vec![-1, 0, 1]),
    ] {
        let element = Element::Int(int);
        let operator = Map { function, element };
        let got = run(one(operator, &[kind(element, &[None])]).unwrap(), &Device::Cpu, &[ints(&x)]).unwrap();
        assert_eq!(got.to_ints().unwrap().data(), want, "{function:?}");
        let array = Array::new(&[x.len()], x.iter().map(|&v| v as f64).collect());
        let truth = operator.reference(&[Some(&array)]).remove(0).unwrap();
        assert_eq!(truth.data, want.iter().map(|&v| v as f64).collect::<Vec<_>>());
    }
    let got = run(
        one(AllTrue, &[kind(Element::F32, &[None, None])]).unwrap(),
        &Device::Cpu,
        &[Tensor::from_f32(&[1.0, 2.0], &[2, 1], &Device::Cpu).unwrap().into()],
    );
    assert_eq!(got.unwrap().to_ints().unwrap(), IntArray::new(&[2, 1], [1, 1]));
}

#[test]
fn types_of_what_is_not_known() {
    let f = |dims: &[Option<usize>]| kind(Element::F32, dims);
    let open = ValueType::unranked(Element::F32);
    let sum = |a: &ValueType, b: &ValueType| Binary::Add.output_types(&[Some(a), Some(b)]);
    assert!(sum(&open, &f(&[Some(3)])).unwrap()[0].unranked);
    assert_eq!(sum(&f(&[None, Some(3)]), &f(&[Some(1)])).unwrap()[0].dims, [Dim::Any, Dim::Size(3)]);
    assert!(sum(&f(&[Some(2)]), &f(&[Some(3)])).is_err());
    let greater = Binary::Greater.output_types(&[Some(&open), Some(&open)]).unwrap();
    assert_eq!(greater[0], ValueType::unranked(Element::Bool));
    let halves = Map { function: Function::Exp, element: Element::F32 };
    assert!(halves.output_types(&[Some(&open)]).unwrap()[0].unranked);
    // Partly known numbers stay partly known.
    let int = Element::Int(Int::I64);
    let a = kind(int, &[Some(2)]).with_known(Some(vec![None, Some(4)]));
    let b = kind(int, &[]).with_known(Some(vec![Some(0)]));
    let operator = whole(Binary::Div, Int::I64);
    assert_eq!(operator.output_types(&[Some(&a), Some(&b)]).unwrap()[0].known.as_deref(), Some(&[None, None][..]));
    let twice = whole(Binary::Add, Int::I64).output_types(&[Some(&a), Some(&a)]).unwrap();
    assert_eq!(twice[0].known.as_deref(), Some(&[None, Some(8)][..]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let int = Element::Int(Int::I64);
    let says = |e: Error, wanted: &[&str]| {
        let text = e.to_string();
        wanted.iter().for_each(|w| assert!(text.contains(w), "{text} without {w}"));
    };
    let graph = || one(whole(Binary::Div, Int::I64), &[kind(int, &[None]), kind(int, &[None])]).unwrap();
    says(run(graph(), &Device::Cpu, &[ints(&[1, 2]), ints(&[1, 0])]).unwrap_err(), &["`node`", "Div", "contains 0"]);
    says(run(graph(), &Device::Cpu, &[ints(&[1, 2]), ints(&[1, 2, 3])]).unwrap_err(), &["[2]", "[3]"]);
    assert!(run(graph(), &Device::Cpu, &[ints(&[]), ints(&[0])]).unwrap().dims() == [0]);
    says(one(Binary::Add, &[kind(int, &[None]), kind(int, &[None])]).unwrap_err(), &["`a`", "f32"]);
    says(one(Binary::BitAnd, &[kind(Element::F32, &[]), kind(Element::F32, &[])]).unwrap_err(), &["BitwiseAnd"]);
    let operator = Map { function: Function::Exp, element: int };
    says(one(operator, &[kind(int, &[None])]).unwrap_err(), &["Exp", "f32"]);
    let operator = whole(Binary::Add, Int::I64);
    says(one(operator, &[kind(int, &[]), kind(Element::Int(Int::I32), &[])]).unwrap_err(), &["`b`", "int64", "int32"]);
    says(one(Where, &[kind(int, &[]), kind(int, &[]), kind(int, &[])]).unwrap_err(), &["`condition`", "bool"]);
    says(
        one(Where, &[kind(Element::Bool, &[]), kind(int, &[]), kind(Element::F32, &[])]).unwrap_err(),
        &["`y`", "int64"],
    );
}
