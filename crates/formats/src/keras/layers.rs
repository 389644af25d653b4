//! Keras's layers as Recurve's, with the weights of each in the order and form of the version that wrote the file.

use super::hdf5::Array;
use super::options::Options;
use super::trained::{keep_sums_of_matrices, without_activity};
use crate::files::{room, short};
use recurve_layers::{
    ActivationFunction, ActivationLayer, ActivityRegularization, Add, AdditiveAttention, AlphaDropout, Attention,
    Average, AveragePooling1d, AveragePooling2d, BatchNormalization, Concatenate, Conv1d, Conv1dTranspose, Conv2d,
    Conv2dTranspose, Cropping1d, Cropping2d, DataFormat, Dense, DepthwiseConv1d, DepthwiseConv2d, Dot, Dropout, Elu,
    Embedding, Flatten, GaussianDropout, GaussianNoise, GlobalAveragePooling1d, GlobalAveragePooling2d,
    GlobalMaxPooling1d, GlobalMaxPooling2d, LayerConfig, LayerNormalization, LeakyRelu, Masking, MaxPooling1d,
    MaxPooling2d, Maximum, Minimum, Multiply, PRelu, Padding, Permute, RecurrentSpec, Relu, RepeatVector, Reshape,
    ScoreMode, SeparableConv1d, SeparableConv2d, Softmax, SpatialDropout1d, SpatialDropout2d, StackedRnnCells,
    Subtract, TimeDistributed, UpSampling, UpSampling1d, UpSampling2d, ZeroPadding1d, ZeroPadding2d,
};
use recurve_vocabulary::{Activation, Bias, Cell, CellKind, GateOrder, Merge};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// A stored variable of a layer.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    /// The path of its owner inside the layer, in a file of Keras 3.
    pub(super) owner: String,
    /// Its name.
    pub(super) name: &'static str,
    /// Whether it is trained; the others are stored behind all that are.
    pub(super) trained: bool,
}

/// Makes weights with Recurve's names from stored variables.
type Make = Box<dyn Fn(Vec<Array>) -> Result<Vec<(String, Array)>, String>>;

/// Stored variables that belong together, and what is made of them.
pub(super) struct Part {
    pub(super) variables: Vec<Variable>,
    pub(super) make: Make,
}

/// A layer of Recurve's, and what it reads from the file.
pub(super) struct Mapped {
    pub(super) layer: LayerConfig,
    pub(super) parts: Vec<Part>,
    /// A function behind the layer that the layer itself does not have.
    pub(super) after: Option<ActivationFunction>,
    /// A penalty for what it gives that the layer itself does not have.
    pub(super) activity: Option<ActivityRegularization>,
}

impl Mapped {
    fn plain(layer: impl Into<LayerConfig>) -> Self {
        Self::with_parts(layer, Vec::new(), None)
    }

    fn with_parts(layer: impl Into<LayerConfig>, parts: Vec<Part>, after: Option<ActivationFunction>) -> Self {
        Self { layer: layer.into(), parts, after, activity: None }
    }

    /// Whether it gives more than one value.
    pub(super) fn has_several_outputs(&self) -> bool {
        match &self.layer {
            LayerConfig::Recurrent(r) => r.return_state || r.bidirectional == Some(Merge::None),
            LayerConfig::StackedRnnCells(s) => s.return_state,
            _ => false,
        }
    }

    /// The same with weights that are not trained.
    pub(super) fn frozen(self) -> Self {
        Self { layer: self.layer.trainable(false), ..self }
    }
}

fn variable(owner: &str, name: &'static str) -> Variable {
    Variable { owner: owner.into(), name, trained: true }
}

/// One variable that becomes one weight.
fn part(name: &'static str, weight: &str, make: impl Fn(Array) -> Result<Array, String> + 'static) -> Part {
    let weight = weight.to_owned();
    let make = move |arrays: Vec<Array>| {
        let [array] = take(arrays)?;
        Ok(vec![(weight.clone(), make(array)?)])
    };
    Part { variables: vec![variable("", name)], make: Box::new(make) }
}

fn take<const N: usize>(arrays: Vec<Array>) -> Result<[Array; N], String> {
    <[Array; N]>::try_from(arrays).map_err(|a| format!("has {} variables where {N} are needed", a.len()))
}

/// An array with its axes in another order: axis n of the result is axis `order[n]`.
fn permuted(array: &Array, order: &[usize]) -> Result<Array, String> {
    let shape = &array.shape;
    if shape.len() != order.len() {
        return Err(format!("has the shape {shape:?}, but {} dimensions are needed", order.len()));
    }
    let mut strides = vec![1; shape.len()];
    for n in (0..shape.len().saturating_sub(1)).rev() {
        strides[n] = strides[n + 1] * shape[n + 1];
    }
    let sizes: Vec<usize> = order.iter().map(|&n| shape[n]).collect();
    let steps: Vec<usize> = order.iter().map(|&n| strides[n]).collect();
    let mut data = room(array.data.len())?;
    let (mut index, mut at) = (vec![0; sizes.len()], 0);
    for _ in 0..array.data.len() {
        data.push(array.data[at]);
        for n in (0..sizes.len()).rev() {
            index[n] += 1;
            at += steps[n];
            if index[n] < sizes[n] {
                break;
            }
            at -= steps[n] * sizes[n];
            index[n] = 0;
        }
    }
    Ok(Array { shape: sizes, data })
}

/// An array with its first `axes` axes read from behind.
fn flipped(array: Array, axes: usize, reversed: bool) -> Array {
    if !reversed {
        return array;
    }
    let inner: usize = array.shape.iter().skip(axes).product();
    let data = array.data.chunks_exact(inner.max(1)).rev().flatten().copied().collect();
    Array { data, ..array }
}

/// How the variables of a recurrent cell are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A kernel, a recurrent kernel and a bias, with the gates side by side.
    Fused,
    /// The same in the layout of cuDNN: each gate's matrix is stored as that of the other orientation, and there are two
    /// biases.
    Cudnn,
    /// Keras 1: three variables for each gate.
    Gates,
}

/// The names of the variables of a cell of Keras 1, gate by gate.
fn old_names(kind: CellKind) -> &'static [&'static str] {
    match kind {
        CellKind::Lstm { .. } => &["W_i", "U_i", "b_i", "W_c", "U_c", "b_c", "W_f", "U_f", "b_f", "W_o", "U_o", "b_o"],
        _ => &["W_z", "U_z", "b_z", "W_r", "U_r", "b_r", "W_h", "U_h", "b_h"],
    }
}

/// The places, in the order of Keras 1, of the gates in the order of later versions.
fn old_places(kind: CellKind) -> &'static [usize] {
    match kind {
        CellKind::Lstm { .. } => &[0, 2, 1, 3],
        _ => &[0, 1, 2],
    }
}

/// Puts the gates of Keras 1 side by side.
fn side_by_side(kind: CellKind, arrays: &[Array]) -> Result<Vec<Array>, String> {
    (0..3)
        .map(|what| {
            let gates: Vec<&Array> = old_places(kind).iter().map(|&g| &arrays[3 * g + what]).collect();
            let first = &gates[0].shape;
            let (rows, columns) = match first[..] {
                [rows, columns] => (rows, columns),
                [columns] => (1, columns),
                _ => return Err(format!("has the shape {first:?}")),
            };
            if gates.iter().any(|g| g.shape != *first) {
                return Err("has gates of different shapes".into());
            }
            let mut data = room(rows * columns * gates.len())?;
            for row in 0..rows {
                gates.iter().for_each(|g| data.extend_from_slice(&g.data[row * columns..][..columns]));
            }
            let wide = columns * gates.len();
            Ok(Array { shape: if first.len() == 1 { vec![wide] } else { vec![rows, wide] }, data })
        })
        .collect()
}

/// The weights of a cell from its variables.
fn cell_weights(
    kind: CellKind,
    form: Form,
    bias: Bias,
    names: [String; 4],
    arrays: Vec<Array>,
) -> Result<Vec<(String, Array)>, String> {
    let arrays = if form == Form::Gates { side_by_side(kind, &arrays)? } else { arrays };
    let gates = kind.gates();
    let mut arrays = arrays.into_iter();
    let mut matrix = |what: &str| {
        let array = arrays.next().ok_or_else(|| format!("has no {what}"))?;
        let &[rows, columns] = &array.shape[..] else {
            return Err(format!("has a {what} of the shape {:?}", array.shape));
        };
        if columns % gates != 0 {
            return Err(format!("has a {what} of the shape {:?}, which is not that of {gates} gates", array.shape));
        }
        let transposed = match form {
            // Each gate's block, read row by row, is the transposed matrix already.
            Form::Cudnn => {
                let (mut data, units) = (room(array.data.len())?, columns / gates);
                for gate in 0..gates {
                    for row in array.data.chunks_exact(columns) {
                        data.extend_from_slice(&row[gate * units..][..units]);
                    }
                }
                data
            }
            _ => permuted(&array, &[1, 0])?.data,
        };
        Ok(Array { shape: vec![columns, rows], data: GateOrder::Keras.to_native(kind, &transposed) })
    };
    let mut all = vec![matrix("kernel")?, matrix("recurrent kernel")?];
    if bias != Bias::None {
        let array = arrays.next().ok_or("has no bias")?;
        let count = if bias == Bias::Double || form == Form::Cudnn { 2 } else { 1 };
        let each = array.data.len() / count;
        let fits = match (form, &array.shape[..]) {
            (Form::Cudnn, [_]) => array.data.len() % (2 * gates) == 0,
            (_, [_]) => count == 1 && each % gates == 0,
            (_, [2, _]) => count == 2 && each % gates == 0,
            _ => false,
        };
        if !fits || each == 0 {
            return Err(format!("has a bias of the shape {:?}", array.shape));
        }
        let rows = array.data.chunks_exact(each).map(|b| GateOrder::Keras.to_native(kind, b));
        let mut rows: Vec<Vec<f32>> = rows.collect();
        if bias == Bias::Single && count == 2 {
            // Both are added to the same sums.
            let second = rows.pop().expect("there are two");
            rows[0].iter_mut().zip(second).for_each(|(a, b)| *a += b);
        }
        all.extend(rows.into_iter().map(|data| Array { shape: vec![data.len()], data }));
    }
    Ok(names.into_iter().zip(all).collect())
}

/// The part of a cell. `prefix` is that of its weights' names, and `end` their end.
fn cell_part(owner: &str, spec: &RecurrentSpec, form: Form, prefix: &str, end: &'static str) -> Part {
    let (kind, bias) = (spec.cell.kind, spec.bias);
    let names: Vec<&'static str> = match form {
        Form::Gates => old_names(kind).to_vec(),
        _ => ["kernel", "recurrent_kernel", "bias"].into_iter().take(if bias == Bias::None { 2 } else { 3 }).collect(),
    };
    let variables = names.into_iter().map(|n| variable(owner, n)).collect();
    let names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|n| format!("{prefix}{n}_l0{end}"));
    let make = move |arrays: Vec<Array>| cell_weights(kind, form, bias, names.clone(), arrays);
    Part { variables, make: Box::new(make) }
}

/// The options of a recurrent cell, without those of the layer around it.
fn cell(o: &mut Options<'_>, class: &str) -> Option<(RecurrentSpec, Form)> {
    let version = o.context.version;
    let units = o.size(&["units", "output_dim"]);
    let cudnn = class.starts_with("CuDNN");
    let activation = |o: &mut Options<'_>, names: &[&str], default| {
        if cudnn { default } else { o.activation(names, default) }
    };
    let candidate = activation(o, &["activation"], Activation::Tanh);
    let mut form = if cudnn { Form::Cudnn } else { Form::Fused };
    let mut made = match class {
        "SimpleRNN" | "SimpleRNNCell" => Cell { candidate, ..Cell::RNN },
        "LSTM" | "LSTMCell" | "CuDNNLSTM" | "GRU" | "GRUCell" | "CuDNNGRU" => {
            // Sigmoid since Keras 2.3, and in TensorFlow's own Keras since TensorFlow 2.
            let old = version.alone_before(2, 3) && !cudnn;
            let usual = if old { Activation::HARD_SIGMOID_KERAS2 } else { Activation::Sigmoid };
            let gates = [activation(o, &["recurrent_activation", "inner_activation"], usual); 3];
            let kind = if class.contains("LSTM") {
                CellKind::Lstm { coupled: false }
            } else {
                let reset_after = cudnn
                    || o.flag(&["reset_after"], version.major >= 3 || (!version.tf && !version.alone_before(2, 4)));
                CellKind::Gru { reset_after }
            };
            if version.major == 1 && o.take(&["consume_less"]).is_none_or(|c| c != "gpu") {
                form = Form::Gates;
            }
            Cell { kind, gates, candidate, output: candidate, ..Cell::LSTM }
        }
        _ => {
            o.problem(format!("has the cell `{}`, which is not supported", short(class)));
            return None;
        }
    };
    if !matches!(made.kind, CellKind::Lstm { .. }) {
        made.output = Activation::Tanh;
    }
    let bias = o.flag(&["use_bias", "bias"], true);
    let mut spec = RecurrentSpec::new(made, units?);
    spec.bias = if bias { Bias::keras(made.kind) } else { Bias::None };
    spec.weight_options = o.weight_options();
    o.recurrent_initializers(&mut spec);
    if form != Form::Fused {
        keep_sums_of_matrices(&mut spec.weight_options, "a layer whose file has its weights in another form");
    }
    if class.ends_with("Cell") {
        without_activity(&mut spec.weight_options, "a cell");
    }
    spec.dropout = o.rate(&["dropout", "dropout_W"]);
    spec.recurrent_dropout = o.rate(&["recurrent_dropout", "dropout_U"]);
    Some((spec, form))
}

/// The options of the layer around a cell.
struct Around {
    return_sequences: bool,
    return_state: bool,
    stateful: bool,
    go_backwards: bool,
    time_major: bool,
    zero_output_for_mask: bool,
}

impl Around {
    fn take(o: &mut Options<'_>) -> Self {
        if o.take(&["num_constants"]).is_some_and(|n| n != 0) {
            o.problem("`num_constants` is not supported: cells have no constants");
        }
        if o.flag(&["reverse_state_order"], false) {
            o.problem("`reverse_state_order` is not supported");
        }
        Self {
            return_sequences: o.flag(&["return_sequences"], false),
            return_state: o.flag(&["return_state"], false),
            stateful: o.flag(&["stateful"], false),
            go_backwards: o.flag(&["go_backwards"], false),
            time_major: o.flag(&["time_major"], false),
            zero_output_for_mask: o.flag(&["zero_output_for_mask"], false),
        }
    }

    fn apply(&self, spec: &mut RecurrentSpec) {
        spec.return_sequences = self.return_sequences;
        spec.return_state = self.return_state;
        spec.stateful = self.stateful;
        spec.go_backwards = self.go_backwards;
        spec.time_major = self.time_major;
        spec.zero_output_for_mask = self.zero_output_for_mask;
    }
}

/// The class and the options of an object inside an option.
fn object(value: &Value) -> Option<(&str, &Map<String, Value>)> {
    Some((value.get("class_name")?.as_str()?, value.get("config")?.as_object()?))
}

/// A recurrent layer with one cell: `LSTM`, or `RNN` around an `LSTMCell`.
fn one_cell(o: &mut Options<'_>) -> Option<(RecurrentSpec, Form)> {
    let around = Around::take(o);
    let class = o.class;
    let (mut spec, form) = if class == "RNN" {
        let value = o.take(&["cell"]);
        let Some((class, map)) = value.as_ref().and_then(object) else {
            o.problem("has no `cell`");
            return None;
        };
        let mut inner = o.inner(class, map);
        let (mut spec, form) = cell(&mut inner, class)?;
        inner.finish();
        let mut own = o.weight_options();
        spec.weight_options.activity_regularizer = own.activity_regularizer;
        spec.weight_options.unsupported.append(&mut own.unsupported);
        (spec, form)
    } else {
        cell(o, class)?
    };
    around.apply(&mut spec);
    Some((spec, form))
}

/// `RNN` around several cells.
fn stacked(o: &mut Options<'_>, map: &Map<String, Value>) -> Option<Mapped> {
    let around = Around::take(o);
    let (mut layer, mut parts, mut numbers) = (StackedRnnCells::new(), Vec::new(), HashMap::new());
    let mut whole = o.inner("StackedRNNCells", map);
    if whole.flag(&["reverse_state_order"], false) {
        whole.problem("`reverse_state_order` is not supported");
    }
    let cells = whole.take(&["cells"]);
    let Some(cells) = cells.as_ref().and_then(Value::as_array) else {
        whole.problem("has no `cells`");
        return None;
    };
    let mut complete = true;
    for (n, value) in cells.iter().enumerate() {
        let Some((class, map)) = object(value) else {
            whole.problem(format!("cell {n} has no class or no options"));
            complete = false;
            continue;
        };
        let mut inner = whole.inner(class, map);
        let found = cell(&mut inner, class);
        if found.is_some() {
            inner.finish();
        }
        let name = unique(class, &mut numbers, 1);
        match found {
            Some((spec, form)) => {
                parts.push(cell_part(&format!("cell/cells/{name}"), &spec, form, &format!("cells.{n}."), ""));
                layer.cells.push(spec);
            }
            None => complete = false,
        }
    }
    whole.finish();
    layer.return_sequences = around.return_sequences;
    layer.return_state = around.return_state;
    layer.stateful = around.stateful;
    layer.go_backwards = around.go_backwards;
    layer.time_major = around.time_major;
    layer.zero_output_for_mask = around.zero_output_for_mask;
    complete.then(|| Mapped::with_parts(layer, parts, None))
}

fn bidirectional(o: &mut Options<'_>) -> Option<Mapped> {
    let merge = match o.raw("merge_mode") {
        Some(Value::Null) => Merge::None,
        None => Merge::Concat,
        Some(mode) => match mode.as_str() {
            Some("concat") => Merge::Concat,
            Some("sum") => Merge::Sum,
            Some("mul") => Merge::Multiply,
            Some("ave") => Merge::Average,
            _ => {
                o.problem(format!("`merge_mode` = {} is not supported", short(&mode.to_string())));
                return None;
            }
        },
    };
    // Options of the layer inside that the wrapper repeats.
    ["return_sequences", "return_state", "stateful"].iter().for_each(|n| drop(o.take(&[n])));
    if o.take(&["num_constants"]).is_some_and(|n| n != 0) {
        o.problem("`num_constants` is not supported: cells have no constants");
    }
    let (forward, backward) = (o.take(&["layer"]), o.take(&["backward_layer"]));
    let mut direction = |value: &Value, what: &str| {
        let Some((class, map)) = object(value) else {
            o.problem(format!("has no `{what}`"));
            return None;
        };
        if !matches!(class, "SimpleRNN" | "LSTM" | "GRU" | "CuDNNLSTM" | "CuDNNGRU" | "RNN") {
            o.problem(format!("`{what}` is a `{}`, which is not supported", short(class)));
            return None;
        }
        let mut inner = o.inner(class, map);
        let found = one_cell(&mut inner)?;
        inner.finish();
        Some(found)
    };
    let (mut spec, form) = direction(&forward?, "layer")?;
    let other = match backward {
        Some(value) => Some(direction(&value, "backward_layer")?),
        None => None,
    };
    if spec.go_backwards {
        o.problem("`layer` has `go_backwards`, which is not supported inside Bidirectional");
        return None;
    }
    if let Some((mut own, own_form)) = other {
        if !std::mem::take(&mut own.go_backwards) {
            o.problem("`backward_layer` must have `go_backwards`");
            return None;
        }
        // Shares that only training drops may differ.
        (own.dropout, own.recurrent_dropout) = (spec.dropout, spec.recurrent_dropout);
        if own.weight_options != spec.weight_options {
            let what = "a `backward_layer` whose weights have other options than those of `layer`";
            spec.weight_options.unsupported.push(what.into());
            own.weight_options = spec.weight_options.clone();
        }
        if own != spec || own_form != form {
            o.problem("`backward_layer` has other options than `layer`, which is not supported");
            return None;
        }
    }
    let version = o.context.version;
    spec.bidirectional = Some(merge);
    // Keras by itself repeats the state at masked timesteps; that inside TensorFlow, and all since 2.4, give zeros.
    let zeros = version.tf || !version.alone_before(2, 4);
    spec.zero_output_for_mask = zeros && spec.return_sequences;
    let parts = vec![
        cell_part("forward_layer/cell", &spec, form, "", ""),
        cell_part("backward_layer/cell", &spec, form, "", "_reverse"),
    ];
    Some(Mapped::with_parts(LayerConfig::Recurrent(spec), parts, None))
}

fn time_distributed(o: &mut Options<'_>, depth: usize) -> Option<Mapped> {
    let value = o.take(&["layer"]);
    let Some((class, map)) = value.as_ref().and_then(object) else {
        o.problem("has no `layer`");
        return None;
    };
    let mut inner = o.inner(class, map);
    let Mapped { layer, mut parts, after, .. } = layer(&mut inner, depth + 1)?;
    inner.finish();
    for variable in parts.iter_mut().flat_map(|p| &mut p.variables) {
        let below = std::mem::take(&mut variable.owner);
        variable.owner = if below.is_empty() { "layer".into() } else { format!("layer/{below}") };
    }
    Some(Mapped::with_parts(TimeDistributed::new(layer), parts, after))
}

/// An unused name for an object of a class, as Keras 3 names its groups. An object counts `step` times.
pub(super) fn unique(class: &str, numbers: &mut HashMap<String, usize>, step: usize) -> String {
    let name = snake_case(class);
    let count = numbers.entry(name.clone()).or_default();
    let number = std::mem::replace(count, *count + step);
    if number == 0 { name } else { format!("{name}_{number}") }
}

/// `simple_rnn` for `SimpleRNN`, `p_re_lu` for `PReLU`, `conv1d` for `Conv1D`.
fn snake_case(class: &str) -> String {
    let letters: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut out = String::new();
    for (n, &c) in letters.iter().enumerate() {
        let before = n.checked_sub(1).map(|n| letters[n]);
        let word = letters.get(n + 1).is_some_and(|next| next.is_ascii_lowercase());
        let begins = before.is_some_and(|b| word || b.is_ascii_lowercase());
        if c.is_ascii_uppercase() && begins {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The function that a layer with weights applies itself, and the one that must stand behind it.
fn applied(o: &mut Options<'_>) -> (Activation, Option<ActivationFunction>) {
    match o.function(&["activation"], Activation::Linear) {
        ActivationFunction::Elementwise(f) => (f, None),
        other => (Activation::Linear, Some(other)),
    }
}

fn data_format(o: &mut Options<'_>) -> DataFormat {
    let name = o.text(&["data_format", "dim_ordering"], "channels_last");
    match &name[..] {
        "channels_last" | "tf" => DataFormat::ChannelsLast,
        "channels_first" | "th" => DataFormat::ChannelsFirst,
        // The order of the program's settings, which is not in the file.
        _ => {
            o.problem(format!("`data_format` = `{}` is not supported", short(&name)));
            DataFormat::ChannelsLast
        }
    }
}

fn padding(o: &mut Options<'_>) -> Padding {
    let name = o.text(&["padding", "border_mode"], "valid");
    match &name[..] {
        "valid" => Padding::Valid,
        "same" => Padding::Same,
        "causal" => Padding::Causal,
        _ => {
            o.problem(format!("`padding` = `{}` is not supported", short(&name)));
            Padding::Valid
        }
    }
}

/// The kernel of a convolution over `axes` axes, `[…, in, out]`, as `[out, in, …]`. `old` has the number of outputs of a
/// layer of Keras 1, whose kernels may be in the order of Theano.
fn kernel(axes: usize, reversed: bool, old: Option<usize>) -> impl Fn(Array) -> Result<Array, String> {
    move |array| {
        let array = match (old, array.shape.get(1), array.shape.last()) {
            (Some(out), ..) if axes == 1 => {
                // Such a kernel has an axis of one element more.
                let mut array = array;
                if array.shape.len() == 4 && (array.shape[1] != 1 || array.shape[3] != out) {
                    array = permuted(&array, &[2, 3, 1, 0])?;
                }
                match array.shape[..] {
                    [len, 1, channels, out] => Array { shape: vec![len, channels, out], data: array.data },
                    _ => return Err(format!("has a kernel of the shape {:?}", array.shape)),
                }
            }
            (Some(out), _, Some(&last)) if array.shape.len() == 4 && last != out => permuted(&array, &[2, 3, 1, 0])?,
            _ => array,
        };
        let order: Vec<usize> = [axes + 1, axes].into_iter().chain(0..axes).collect();
        permuted(&flipped(array, axes, reversed), &order)
    }
}

/// The kernel of a depthwise convolution, `[…, in, times]`, as `[in · times, 1, …]`.
fn depthwise_kernel(axes: usize) -> impl Fn(Array) -> Result<Array, String> {
    move |array| {
        let order: Vec<usize> = [axes, axes + 1].into_iter().chain(0..axes).collect();
        let Array { shape, data } = permuted(&array, &order)?;
        Ok(Array { shape: [&[shape[0] * shape[1], 1], &shape[2..]].concat(), data })
    }
}

/// A number as an array of one element.
fn number(array: Array) -> Result<Array, String> {
    match array.data.len() {
        1 => Ok(Array { shape: vec![1], data: array.data }),
        _ => Err(format!("has the shape {:?}, but one number is needed", array.shape)),
    }
}

/// A layer over windows of one or two axes: reads the options into `$layer`, which has been made by `new`.
macro_rules! windows {
    ($o:ident, $layer:ident, $axes:literal, $set:expr) => {{
        $layer.padding = padding($o);
        $layer.data_format = data_format($o);
        let set: fn(&mut _, [[usize; $axes]; 2]) = $set;
        let one = [1; $axes];
        let strides = $o.sizes::<$axes>(&["strides", "subsample", "subsample_length"], 1).unwrap_or(one);
        let rates = $o.sizes::<$axes>(&["dilation_rate", "atrous_rate"], 1).unwrap_or(one);
        set(&mut $layer, [strides, rates]);
    }};
}

macro_rules! conv {
    ($o:ident, $type:ident, $axes:literal, $size:expr, $transposed:literal, $groups:expr, $extra:expr) => {{
        let filters = $o.size(&["filters", "nb_filter"]);
        let size = $o.sizes::<$axes>(&["kernel_size", "filter_length"], 1).or_else(|| {
            // Keras 1 has the sizes of two axes apart.
            let each = ["nb_row", "nb_col"].map(|n| $o.size(&[n]));
            <[usize; $axes]>::try_from(each.into_iter().flatten().collect::<Vec<_>>()).ok()
        });
        let (activation, after) = applied($o);
        let bias = $o.flag(&["use_bias", "bias"], true);
        let Some(size) = size else {
            $o.problem("has no `kernel_size`");
            return None;
        };
        let mut layer = $type::new(filters?, $size(size));
        windows!($o, layer, $axes, |l: &mut $type, [s, d]| (l.strides, l.dilation_rate) = ($size(s), $size(d)));
        let groups: fn(&mut $type, &mut Options<'_>) = $groups;
        groups(&mut layer, $o);
        let extra: fn(&mut $type, Option<[usize; $axes]>) = $extra;
        if $transposed {
            extra(&mut layer, $o.sizes::<$axes>(&["output_padding"], 0));
        }
        (layer.activation, layer.use_bias) = (activation, bias);
        let old = ($o.context.version.major == 1).then_some(layer.filters);
        let Some(reversed) = $o.context.reversed else {
            $o.problem("is of Keras 1, and the file does not say whether Theano wrote its kernels");
            return None;
        };
        let mut parts = vec![part("kernel", "weight", kernel($axes, reversed, old))];
        if bias {
            parts.push(part("bias", "bias", Ok));
        }
        Some(Mapped::with_parts(layer, parts, after))
    }};
}

macro_rules! depthwise {
    ($o:ident, $type:ident, $axes:literal, $size:expr) => {{
        let size = $o.sizes::<$axes>(&["kernel_size"], 1);
        let times = $o.count(&["depth_multiplier"]);
        $o.only_one(&["groups"]);
        let (activation, after) = applied($o);
        let bias = $o.flag(&["use_bias"], true);
        let Some(size) = size else {
            $o.problem("has no `kernel_size`");
            return None;
        };
        let mut layer = $type::new($size(size));
        layer.depth_multiplier = times;
        windows!($o, layer, $axes, |l: &mut $type, [s, d]| (l.strides, l.dilation_rate) = ($size(s), $size(d)));
        (layer.activation, layer.use_bias) = (activation, bias);
        let name = if $o.context.version.major >= 3 { "kernel" } else { "depthwise_kernel" };
        let mut parts = vec![part(name, "weight", depthwise_kernel($axes))];
        if bias {
            parts.push(part("bias", "bias", Ok));
        }
        Some(Mapped::with_parts(layer, parts, after))
    }};
}

macro_rules! separable {
    ($o:ident, $type:ident, $axes:literal, $size:expr) => {{
        let filters = $o.size(&["filters", "nb_filter"]);
        let size = $o.sizes::<$axes>(&["kernel_size"], 1);
        let times = $o.count(&["depth_multiplier"]);
        $o.only_one(&["groups"]);
        let (activation, after) = applied($o);
        let bias = $o.flag(&["use_bias", "bias"], true);
        let Some(size) = size else {
            $o.problem("has no `kernel_size`");
            return None;
        };
        let mut layer = $type::new(filters?, $size(size));
        layer.depth_multiplier = times;
        windows!($o, layer, $axes, |l: &mut $type, [s, d]| (l.strides, l.dilation_rate) = ($size(s), $size(d)));
        (layer.activation, layer.use_bias) = (activation, bias);
        let mut parts = vec![
            part("depthwise_kernel", "depthwise.weight", depthwise_kernel($axes)),
            part("pointwise_kernel", "pointwise.weight", kernel($axes, false, None)),
        ];
        if bias {
            parts.push(part("bias", "pointwise.bias", Ok));
        }
        Some(Mapped::with_parts(layer, parts, after))
    }};
}

macro_rules! pool {
    ($o:ident, $type:ident, $axes:literal, $size:expr) => {{
        let size = $o.sizes::<$axes>(&["pool_size", "pool_length"], 1).unwrap_or([2; $axes]);
        let mut layer = $type::new($size(size));
        layer.padding = padding($o);
        layer.data_format = data_format($o);
        layer.strides = $o.sizes::<$axes>(&["strides", "stride"], 1).map($size);
        Some(Mapped::plain(layer))
    }};
}

macro_rules! global {
    ($o:ident, $type:ident) => {{
        let mut layer = $type::new();
        layer.data_format = data_format($o);
        layer.keepdims = $o.flag(&["keepdims"], false);
        Some(Mapped::plain(layer))
    }};
}

fn one([n]: [usize; 1]) -> usize {
    n
}
fn both(n: [usize; 2]) -> [usize; 2] {
    n
}

/// Normalization: its parts from gamma, beta and, of batches, the statistics.
fn affine(scale: bool, center: bool) -> Vec<Part> {
    let scale = scale.then(|| part("gamma", "weight", Ok));
    scale.into_iter().chain(center.then(|| part("beta", "bias", Ok))).collect()
}

/// A layer that is not a model, from its class and options. Problems are noted in `o`.
pub(super) fn layer(o: &mut Options<'_>, depth: usize) -> Option<Mapped> {
    let mut mapped = of_class(o, depth)?;
    let options = o.weight_options();
    if let Some(variable) = options.initializers.keys().next()
        && mapped.layer.weight_options_mut().len() != 1
    {
        o.problem(format!("`{}` is not supported", variable.initializer()));
    }
    Some(mapped.with_options(o.class, options))
}

fn of_class(o: &mut Options<'_>, depth: usize) -> Option<Mapped> {
    if depth > super::config::MAX_DEPTH {
        o.problem(format!("is inside more than {} layers", super::config::MAX_DEPTH));
        return None;
    }
    let version = o.context.version;
    let class = o.class;
    match class {
        "SimpleRNN" | "LSTM" | "GRU" | "CuDNNLSTM" | "CuDNNGRU" => {
            let (spec, form) = one_cell(o)?;
            let part = cell_part("cell", &spec, form, "", "");
            Some(Mapped::with_parts(LayerConfig::Recurrent(spec), vec![part], None))
        }
        "RNN" => {
            let inner = o.raw("cell").unwrap_or_default();
            match object(&inner) {
                Some(("StackedRNNCells", map)) => stacked(o, map),
                _ => {
                    o.put("cell", inner);
                    let (spec, form) = one_cell(o)?;
                    let part = cell_part("cell", &spec, form, "", "");
                    Some(Mapped::with_parts(LayerConfig::Recurrent(spec), vec![part], None))
                }
            }
        }
        "Bidirectional" => bidirectional(o),
        "TimeDistributed" => time_distributed(o, depth),
        "Embedding" => {
            let (rows, width) = (o.size(&["input_dim"]), o.size(&["output_dim"]));
            let mut layer = Embedding::new(rows?, width?);
            layer.mask_zero = o.flag(&["mask_zero"], false);
            if o.flag(&["sparse"], false) {
                o.problem("`sparse` is not supported");
            }
            o.rate(&["dropout"]);
            Some(Mapped::with_parts(layer, vec![part("embeddings", "weight", Ok)], None))
        }
        "Dense" | "TimeDistributedDense" => {
            let units = o.size(&["units", "output_dim"]);
            let (activation, after) = applied(o);
            let bias = o.flag(&["use_bias", "bias"], true);
            let mut layer = Dense::new(units?);
            (layer.activation, layer.use_bias) = (activation, bias);
            let mut parts = vec![part("kernel", "weight", |k| permuted(&k, &[1, 0]))];
            if bias {
                parts.push(part("bias", "bias", Ok));
            }
            let layer: LayerConfig = layer.into();
            let layer = if class == "Dense" { layer } else { TimeDistributed::new(layer).into() };
            Some(Mapped::with_parts(layer, parts, after))
        }
        "Dropout" => {
            let mut layer = Dropout::new(o.rate(&["rate", "p"]));
            layer.noise_shape = o.noise_shape();
            Some(Mapped::plain(layer))
        }
        "SpatialDropout1D" => Some(Mapped::plain(SpatialDropout1d::new(o.rate(&["rate", "p"])))),
        "SpatialDropout2D" => {
            data_format(o);
            Some(Mapped::plain(SpatialDropout2d::new(o.rate(&["rate", "p"]))))
        }
        "GaussianNoise" => Some(Mapped::plain(GaussianNoise::new(o.rate(&["stddev", "sigma"])))),
        "GaussianDropout" => Some(Mapped::plain(GaussianDropout::new(o.rate(&["rate", "p"])))),
        "AlphaDropout" => {
            let mut layer = AlphaDropout::new(o.rate(&["rate"]));
            layer.noise_shape = o.noise_shape();
            Some(Mapped::plain(layer))
        }
        "ActivityRegularization" => {
            let (l1, l2) = (o.number(&["l1"], 0.0), o.number(&["l2"], 0.0));
            Some(Mapped::plain(ActivityRegularization::new(l1, l2)))
        }
        "Masking" => Some(Mapped::plain(Masking::new(o.number(&["mask_value"], 0.0)))),
        "Flatten" => {
            let mut layer = Flatten::new();
            layer.data_format = data_format(o);
            Some(Mapped::plain(layer))
        }
        "Reshape" => match o.list(&["target_shape"]) {
            Some(shape) => Some(Mapped::plain(Reshape::new(&shape))),
            None => {
                o.problem("has no `target_shape`");
                None
            }
        },
        "Permute" => {
            let dims = o.list(&["dims"]).unwrap_or_default();
            match dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>() {
                Some(dims) if !dims.is_empty() => Some(Mapped::plain(Permute::new(&dims))),
                _ => {
                    o.problem("`dims` must be the axes from 1 on");
                    None
                }
            }
        }
        "RepeatVector" => Some(Mapped::plain(RepeatVector::new(o.size(&["n"])?))),
        "Conv1D" | "Convolution1D" | "AtrousConvolution1D" => {
            conv!(o, Conv1d, 1, one, false, |l, o| l.groups = o.count(&["groups"]), |_, _| {})
        }
        "Conv2D" | "Convolution2D" | "AtrousConvolution2D" => {
            conv!(o, Conv2d, 2, both, false, |l, o| l.groups = o.count(&["groups"]), |_, _| {})
        }
        "Conv1DTranspose" => {
            conv!(o, Conv1dTranspose, 1, one, true, |_, o| o.only_one(&["groups"]), |l, extra| l.output_padding =
                extra.map(one))
        }
        "Conv2DTranspose" => {
            conv!(o, Conv2dTranspose, 2, both, true, |_, o| o.only_one(&["groups"]), |l, extra| l.output_padding =
                extra)
        }
        "DepthwiseConv1D" => depthwise!(o, DepthwiseConv1d, 1, one),
        "DepthwiseConv2D" => depthwise!(o, DepthwiseConv2d, 2, both),
        "SeparableConv1D" => separable!(o, SeparableConv1d, 1, one),
        "SeparableConv2D" => separable!(o, SeparableConv2d, 2, both),
        "MaxPooling1D" => pool!(o, MaxPooling1d, 1, one),
        "MaxPooling2D" => pool!(o, MaxPooling2d, 2, both),
        "AveragePooling1D" => pool!(o, AveragePooling1d, 1, one),
        "AveragePooling2D" => pool!(o, AveragePooling2d, 2, both),
        "GlobalMaxPooling1D" => global!(o, GlobalMaxPooling1d),
        "GlobalMaxPooling2D" => global!(o, GlobalMaxPooling2d),
        "GlobalAveragePooling1D" => global!(o, GlobalAveragePooling1d),
        "GlobalAveragePooling2D" => global!(o, GlobalAveragePooling2d),
        "ZeroPadding1D" => {
            let [borders] = o.borders::<1>(&["padding"], 1);
            let mut layer = ZeroPadding1d::new(borders);
            layer.data_format = data_format(o);
            Some(Mapped::plain(layer))
        }
        "ZeroPadding2D" => {
            let mut layer = ZeroPadding2d::new(o.borders::<2>(&["padding"], 1));
            layer.data_format = data_format(o);
            Some(Mapped::plain(layer))
        }
        "Cropping1D" => {
            let [borders] = o.borders::<1>(&["cropping"], 1);
            Some(Mapped::plain(Cropping1d::new(borders)))
        }
        "Cropping2D" => {
            let mut layer = Cropping2d::new(o.borders::<2>(&["cropping"], 0));
            layer.data_format = data_format(o);
            Some(Mapped::plain(layer))
        }
        "UpSampling1D" => {
            let [size] = o.sizes::<1>(&["size", "length"], 1).unwrap_or([2]);
            Some(Mapped::plain(UpSampling1d::new(size)))
        }
        "UpSampling2D" => {
            let mut layer = UpSampling2d::new(o.sizes::<2>(&["size"], 1).unwrap_or([2; 2]));
            layer.data_format = data_format(o);
            match &o.text(&["interpolation"], "nearest")[..] {
                "nearest" => {}
                "bilinear" => layer.interpolation = UpSampling::Bilinear,
                other => o.problem(format!("`interpolation` = `{}` is not supported", short(other))),
            }
            Some(Mapped::plain(layer))
        }
        "BatchNormalization" => {
            if version.major == 1 {
                // Its versions disagree on whether the stored number is a variance or its root.
                o.problem("is of Keras 1, whose stored statistics are not known to be variances");
                return None;
            }
            let (scale, center) = (o.flag(&["scale"], true), o.flag(&["center"], true));
            let mut layer = BatchNormalization::new();
            layer.axis = o.axis(&["axis"], -1);
            layer.epsilon = o.number(&["epsilon"], 1e-3);
            layer.momentum = o.number(&["momentum"], 0.99);
            (layer.scale, layer.center) = (scale, center);
            // Options of TensorFlow's own version that change what is computed or stored.
            if o.flag(&["renorm"], false) {
                o.problem("`renorm` is not supported");
            }
            for name in ["virtual_batch_size", "fused", "adjustment"] {
                let value = o.take(&[name]);
                if name == "virtual_batch_size" && value.is_some() {
                    o.problem("`virtual_batch_size` is not supported");
                }
            }
            let statistics = [("moving_mean", "running_mean"), ("moving_variance", "running_var")];
            let statistics = statistics.map(|(name, weight)| {
                let mut part = part(name, weight, Ok);
                part.variables[0].trained = false;
                part
            });
            let parts = affine(scale, center).into_iter().chain(statistics).collect();
            Some(Mapped::with_parts(layer, parts, None))
        }
        "LayerNormalization" => {
            let (scale, center) = (o.flag(&["scale"], true), o.flag(&["center"], true));
            let mut layer = LayerNormalization::new();
            layer.axis = o.list(&["axis"]).unwrap_or_else(|| vec![-1]);
            layer.epsilon = o.number(&["epsilon"], 1e-3);
            layer.rms_scaling = o.flag(&["rms_scaling"], false);
            (layer.scale, layer.center) = (scale, center);
            let parts = affine(scale || layer.rms_scaling, center && !layer.rms_scaling);
            Some(Mapped::with_parts(layer, parts, None))
        }
        "Concatenate" => Some(Mapped::plain(Concatenate::new().axis(o.axis(&["axis"], -1)))),
        "Add" => Some(Mapped::plain(Add::new())),
        "Subtract" => Some(Mapped::plain(Subtract::new())),
        "Multiply" => Some(Mapped::plain(Multiply::new())),
        "Average" => Some(Mapped::plain(Average::new())),
        "Maximum" => Some(Mapped::plain(Maximum::new())),
        "Minimum" => Some(Mapped::plain(Minimum::new())),
        "Merge" => merge(o),
        "Dot" => dot(o, "axes"),
        "Attention" | "AdditiveAttention" => attention(o),
        "Activation" => Some(Mapped::plain(ActivationLayer::new(o.function(&["activation"], Activation::Linear)))),
        "LeakyReLU" => Some(Mapped::plain(LeakyRelu::new(o.number(&["negative_slope", "alpha"], 0.3)))),
        "PReLU" => {
            let axes = o.list(&["shared_axes"]).unwrap_or_default();
            let axes: Vec<usize> = axes.iter().filter_map(|&a| usize::try_from(a).ok()).collect();
            let layer = PRelu::new().shared_axes(&axes);
            Some(Mapped::with_parts(layer, vec![part("alpha", "weight", Ok)], None))
        }
        "ELU" => Some(Mapped::plain(Elu::new(o.number(&["alpha"], 1.0)))),
        "ThresholdedReLU" => {
            let alpha = o.number(&["theta"], 1.0);
            Some(Mapped::plain(ActivationLayer::new(Activation::ThresholdedRelu { alpha })))
        }
        "ReLU" => {
            let mut layer = Relu::new();
            layer.max_value = o.take(&["max_value"]).and_then(|v| v.as_f64()).map(|v| v as f32);
            layer.negative_slope = o.number(&["negative_slope"], 0.0);
            layer.threshold = o.number(&["threshold"], 0.0);
            Some(Mapped::plain(layer))
        }
        "Softmax" => Some(Mapped::plain(Softmax::new().axis(o.axis(&["axis"], -1)))),
        "Lambda" => {
            o.problem("is code of its own, which cannot be run");
            None
        }
        _ => {
            let known = class.chars().all(|c| c.is_alphanumeric() || c == '_');
            let what = if known { "is not supported" } else { "is somebody's own code, which is not in the file" };
            o.problem(format!("the class `{}` {what}", short(class)));
            None
        }
    }
}

/// The joins of Keras 1, one class with a mode.
fn merge(o: &mut Options<'_>) -> Option<Mapped> {
    let mode = o.text(&["mode"], "sum");
    let axis = o.axis(&["concat_axis"], -1);
    ["mode_type", "output_shape_type", "output_mask_type"].iter().for_each(|n| drop(o.take(&[n])));
    ["arguments", "output_shape", "output_mask"].iter().for_each(|n| drop(o.take(&[n])));
    if &mode[..] != "dot" {
        o.take(&["dot_axes"]);
    }
    match &mode[..] {
        "sum" => Some(Mapped::plain(Add::new())),
        "mul" => Some(Mapped::plain(Multiply::new())),
        "ave" => Some(Mapped::plain(Average::new())),
        "max" => Some(Mapped::plain(Maximum::new())),
        "concat" => Some(Mapped::plain(Concatenate::new().axis(axis))),
        "dot" => dot(o, "dot_axes"),
        other => {
            o.problem(format!("`mode` = `{}` is not supported", short(other)));
            None
        }
    }
}

fn dot(o: &mut Options<'_>, name: &str) -> Option<Mapped> {
    let normalize = o.flag(&["normalize"], false);
    let axes = match o.list(&[name]).as_deref() {
        Some(&[one]) => [one; 2],
        Some(&[a, b]) => [a, b],
        _ => {
            o.problem(format!("`{name}` must be one axis or two"));
            return None;
        }
    };
    Some(Mapped::plain(Dot::new(axes).normalize(normalize)))
}

fn attention(o: &mut Options<'_>) -> Option<Mapped> {
    let additive = o.class == "AdditiveAttention";
    let scale = o.flag(&["use_scale"], additive);
    // Of Keras 2; later it is an option of the call.
    let causal = o.flag(&["causal"], false);
    let dropout = o.rate(&["dropout"]);
    let mode = o.text(&["score_mode"], "dot");
    let mut parts: Vec<Part> = Vec::new();
    if additive {
        if scale {
            parts.push(part("scale", "scale", Ok));
        }
        let layer = AdditiveAttention::new().use_scale(scale).use_causal_mask(causal).dropout(dropout);
        return Some(Mapped::with_parts(layer, parts, None));
    }
    if scale {
        parts.push(part("scale", "scale", number));
    }
    let mode = match &mode[..] {
        "dot" => ScoreMode::Dot,
        "concat" => {
            parts.push(part("concat_score_weight", "concat_score_weight", number));
            ScoreMode::Concat
        }
        other => {
            o.problem(format!("`score_mode` = `{}` is not supported", short(other)));
            return None;
        }
    };
    let layer = Attention::new().use_scale(scale).use_causal_mask(causal).dropout(dropout).score_mode(mode);
    Some(Mapped::with_parts(layer, parts, None))
}
