//! The arithmetic within units of cells with any options, row by row.

use super::slopes::{clamp, slopes, stop_at, unfold};
use super::{Params, Plan, blocks, blocks_mut};
use crate::CellKind;
use recurve_tensor::Activation;
use recurve_tensor::cpu::simd::activate_slice;

/// The two halves of the sums of a row, `[G·H]` each: that of the input and the recurrent one, with their biases.
pub(super) struct Sides<'a> {
    pub(super) input: &'a mut [f32],
    pub(super) hidden: &'a mut [f32],
}

/// `out = a ∘ b`
pub(super) fn product(a: &[f32], b: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(a).zip(b).for_each(|((o, a), b)| *o = a * b);
}

/// `out = out + a`
pub(super) fn add(a: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(a).for_each(|(o, a)| *o += a);
}

/// `out = out + a ∘ b`
pub(super) fn add_product(a: &[f32], b: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(a).zip(b).for_each(|((o, a), b)| *o += a * b);
}

/// `new = shares ∘ old + (1 - shares) ∘ new`
pub(super) fn mix(shares: &[f32], old: &[f32], new: &mut [f32]) {
    new.iter_mut().zip(old).zip(shares).for_each(|((n, o), s)| *n = s * o + (1.0 - s) * *n);
}

/// Back through [`mix`]: what comes back to the mean becomes what comes back to the new state; adds the rest to that of
/// the old one.
pub(super) fn unmix(shares: &[f32], new: &mut [f32], old: &mut [f32]) {
    for ((n, o), s) in new.iter_mut().zip(old).zip(shares) {
        *o += s * *n;
        *n *= 1.0 - s;
    }
}

/// Makes the mean 0 and the variance 1, and returns what the elements were multiplied by for that.
fn standardize(v: &mut [f32], epsilon: f32) -> f32 {
    let n = v.len() as f64;
    let mean = v.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = v.iter().map(|&v| (f64::from(v) - mean) * (f64::from(v) - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
    v.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
    scale as f32
}

/// Back through a layer normalization with these gains, from its standardized values and their factor.
fn by_norm(d: &mut [f32], gains: &[f32], standard: &[f32], scale: f32) {
    let n = d.len() as f64;
    d.iter_mut().zip(gains).for_each(|(d, g)| *d *= g);
    let mean = d.iter().map(|&d| f64::from(d)).sum::<f64>() / n;
    let along = d.iter().zip(standard).map(|(&d, &x)| f64::from(d) * f64::from(x)).sum::<f64>() / n;
    for (d, &x) in d.iter_mut().zip(standard) {
        *d = ((f64::from(*d) - mean - f64::from(x) * along) * f64::from(scale)) as f32;
    }
}

/// Layer normalization of both halves of the sums, if the cell has it, and the biases that are not added yet. `norms` is
/// what is kept of it.
pub(super) fn normalize_sides(plan: &Plan, p: &Params<'_>, input: &mut [f32], hidden: &mut [f32], norms: &mut [f32]) {
    let Some(epsilon) = plan.cell.layer_norm else {
        if plan.reset_after() && !p.b_hh.is_empty() {
            add(&p.b_hh[2 * plan.h..], &mut hidden[2 * plan.h..]);
        }
        return;
    };
    let n = input.len();
    let (standard, scales) = norms.split_at_mut(2 * n);
    let (standard_ih, standard_hh) = standard.split_at_mut(n);
    let sides = [(input, standard_ih, p.norm_ih, p.b_ih), (hidden, standard_hh, p.norm_hh, p.b_hh)];
    for ((v, standard, norm, bias), scale) in sides.into_iter().zip(scales) {
        *scale = standardize(v, epsilon);
        standard.copy_from_slice(v);
        let (gain, offset) = norm.split_at(n);
        v.iter_mut().zip(gain).zip(offset).for_each(|((v, g), o)| *v = *v * g + o);
        if !bias.is_empty() {
            add(bias, v);
        }
    }
}

/// Back through [`normalize_sides`]: `input` and `hidden` become the gradients of `W_ih x` and `W_hh h`. `sums` gets what
/// belongs to gains and offsets, `[2, G·H]` of each.
pub(super) fn by_sides(p: &Params<'_>, input: &mut [f32], hidden: &mut [f32], norms: &[f32], sums: [&mut [f32]; 2]) {
    let n = input.len();
    let [sum_ih, sum_hh] = sums;
    let (standard_ih, rest) = norms.split_at(n);
    let (standard_hh, scales) = rest.split_at(n);
    for ((d, standard, norm, sum), &scale) in
        [(input, standard_ih, p.norm_ih, sum_ih), (hidden, standard_hh, p.norm_hh, sum_hh)].into_iter().zip(scales)
    {
        let (gain, offset) = sum.split_at_mut(n);
        add_product(d, standard, gain);
        add(d, offset);
        by_norm(d, &norm[..n], standard, scale);
    }
}

/// A gate: keeps its sum or its value, and turns the sum into the value.
fn gate(plan: &Plan, f: Activation, sum: &mut [f32], kept: &mut [f32]) {
    if plan.sums {
        kept.copy_from_slice(sum);
    }
    clamp(plan.cell.clip, sum);
    activate_slice(f, sum);
    if !plan.sums {
        kept.copy_from_slice(sum);
    }
}

/// The state after a timestep of any cell but a GRU with the reset gate before the product. `out` is the new h, or what
/// is projected to it; `shown` is memory of H floats.
pub(super) fn forward(
    plan: &Plan,
    p: &Params<'_>,
    sides: Sides<'_>,
    kept: &mut [f32],
    [h, c]: [&[f32]; 2],
    [out, new_c, shown]: [&mut [f32]; 3],
) {
    let (hn, cell) = (plan.h, &plan.cell);
    let [gate0, gate1, gate2] = cell.gates;
    let Sides { input, hidden } = sides;
    if !plan.reset_after() {
        add(hidden, input);
    }
    match cell.kind {
        CellKind::Lstm { coupled } => {
            let [i, f, g, o] = blocks_mut(input, hn);
            let [ki, kf, kg, ko] = blocks_mut(kept, hn);
            let [pi, pf, po] = if cell.peepholes { blocks(p.peepholes, hn) } else { [&[][..]; 3] };
            add_product(pi, c, i);
            gate(plan, gate0, i, ki);
            if coupled {
                f.iter_mut().zip(&*i).for_each(|(f, i)| *f = 1.0 - i);
                kf.copy_from_slice(f);
            } else {
                add_product(pf, c, f);
                gate(plan, gate1, f, kf);
            }
            gate(plan, cell.candidate, g, kg);
            product(f, c, new_c);
            add_product(i, g, new_c);
            add_product(po, new_c, o);
            gate(plan, gate2, o, ko);
            shown.copy_from_slice(new_c);
            if let Some(epsilon) = cell.layer_norm {
                standardize(shown, epsilon);
                let (gain, offset) = p.norm_c.split_at(hn);
                shown.iter_mut().zip(gain).zip(offset).for_each(|((v, g), o)| *v = *v * g + o);
            }
            clamp(cell.clip.filter(|_| cell.clip_output), shown);
            activate_slice(cell.output, shown);
            product(o, shown, out);
        }
        CellKind::Gru { .. } => {
            let [r, z, n] = blocks_mut(input, hn);
            let [hr, hz, q] = blocks(hidden, hn);
            let [kr, kz, kn, kq] = blocks_mut(kept, hn);
            add(hr, r);
            gate(plan, gate0, r, kr);
            add(hz, z);
            gate(plan, gate1, z, kz);
            kq.copy_from_slice(q);
            add_product(r, q, n);
            gate(plan, cell.candidate, n, kn);
            out.copy_from_slice(n);
            mix(z, h, out);
        }
        CellKind::MinGru => {
            let [z, n] = blocks_mut(input, hn);
            let [kz, kn] = blocks_mut(kept, hn);
            gate(plan, gate0, z, kz);
            gate(plan, cell.candidate, n, kn);
            out.copy_from_slice(h);
            mix(z, n, out);
        }
        CellKind::MinLstm => {
            let [f, i, n] = blocks_mut(input, hn);
            let [kf, ki, kn] = blocks_mut(kept, hn);
            gate(plan, gate0, f, kf);
            gate(plan, gate1, i, ki);
            gate(plan, cell.candidate, n, kn);
            for j in 0..hn {
                out[j] = (f[j] * h[j] + i[j] * n[j]) / both(f[j], i[j]);
            }
        }
        CellKind::SLstm { exponential_forget, .. } => {
            let [i, f, z, o] = blocks_mut(input, hn);
            let [ki, kf, kz, ko] = blocks_mut(kept, hn);
            ki.copy_from_slice(i);
            kf.copy_from_slice(f);
            clamp(cell.clip, i);
            clamp(cell.clip, f);
            gate(plan, cell.candidate, z, kz);
            gate(plan, gate2, o, ko);
            let [c, n, m] = blocks(c, hn);
            let [new_c, new_n, new_m] = blocks_mut(new_c, hn);
            for j in 0..hn {
                let s = Stabilized::new(exponential_forget, [i[j], f[j]], [n[j], m[j]]);
                new_c[j] = s.f * c[j] + s.i * z[j];
                new_n[j] = s.f * n[j] + s.i;
                new_m[j] = s.top;
                out[j] = o[j] * (new_c[j] / new_n[j]);
            }
        }
        // SimpleRNN and IndRNN.
        _ => {
            gate(plan, cell.candidate, input, kept);
            out.copy_from_slice(input);
        }
    }
}

/// The exponential gates of a unit of an sLSTM.
struct Stabilized {
    /// `m + ln f`
    kept: f32,
    top: f32,
    /// Whether `top` is `kept` instead of the sum of i.
    keeps: bool,
    i: f32,
    f: f32,
}

impl Stabilized {
    fn new(exponential_forget: bool, [i, f]: [f32; 2], [n, m]: [f32; 2]) -> Self {
        // ln σ(f) = min(f, 0) - ln(1 + e^-|f|); NaN stays NaN.
        let log = if exponential_forget { f } else { (if f > 0.0 { 0.0 } else { f }) - (-f.abs()).exp().ln_1p() };
        let kept = m + log;
        let keeps = n != 0.0 && (kept > i || kept.is_nan());
        let top = if keeps { kept } else { i };
        let less = kept - top;
        Self { kept, top, keeps, i: (i - top).exp(), f: (if less > 0.0 { 0.0 } else { less }).exp() }
    }
}

/// A GRU with the reset gate before the product, up to it: keeps r and z, and computes `r ∘ h` and z. `h` comes with its
/// factors, if there are any.
pub(super) fn reset(
    plan: &Plan,
    sides: Sides<'_>,
    kept: &mut [f32],
    [h, factors]: [&[f32]; 2],
    [rh, z_out]: [&mut [f32]; 2],
) {
    let hn = plan.h;
    let [gate0, gate1, _] = plan.cell.gates;
    add(&sides.hidden[..2 * hn], &mut sides.input[..2 * hn]);
    let [r, z] = blocks_mut(&mut sides.input[..2 * hn], hn);
    let [kr, kz] = blocks_mut(&mut kept[..2 * hn], hn);
    gate(plan, gate0, r, kr);
    gate(plan, gate1, z, kz);
    product(r, h, rh);
    if !factors.is_empty() {
        rh.iter_mut().zip(factors).for_each(|(v, f)| *v *= f);
    }
    z_out.copy_from_slice(z);
}

/// The rest: `n` holds the projected input of the candidate, and gets what is kept of it.
pub(super) fn candidate(
    plan: &Plan,
    sum: &[f32],
    n: &mut [f32],
    [z, h]: [&[f32]; 2],
    out: &mut [f32],
    value: &mut [f32],
) {
    value.copy_from_slice(n);
    add(sum, value);
    gate(plan, plan.cell.candidate, value, n);
    out.copy_from_slice(value);
    mix(z, h, out);
}

/// What a timestep has seen and what comes back to its results.
pub(super) struct Back<'a> {
    pub(super) kept: &'a [f32],
    pub(super) h: &'a [f32],
    pub(super) c: &'a [f32],
    /// What comes back to the new h, or to what is projected to it.
    pub(super) dh: &'a [f32],
    /// What comes back to the new c; changed to what comes back to the old one.
    pub(super) dc: &'a mut [f32],
    /// What the old h gets without a product is added here.
    pub(super) direct: &'a mut [f32],
    /// Gets what is projected to h, for cells that do.
    pub(super) output: &'a mut [f32],
    /// The gradients of the sums; of a GRU with the reset gate after the product a fourth block, that of the
    /// candidate's recurrent sum.
    pub(super) d: &'a mut [f32],
    /// Shares of the old c in the new one.
    pub(super) zoneout_c: Option<&'a [f32]>,
    /// What belongs to the peepholes is added here, `[3·H]`.
    pub(super) sum_peepholes: &'a mut [f32],
    /// What belongs to the normalization of c, `[2·H]`.
    pub(super) sum_norm_c: &'a mut [f32],
    /// Memory of 12 · H floats.
    pub(super) memory: &'a mut [f32],
}

/// Back through [`forward`].
pub(super) fn backward(plan: &Plan, p: &Params<'_>, a: Back<'_>) {
    let (hn, cell) = (plan.h, &plan.cell);
    let [gate0, gate1, gate2] = cell.gates;
    let Back { kept, h, c, dh, dc, direct, output, d, zoneout_c, sum_peepholes, sum_norm_c, memory } = a;
    let unfold = |f: Activation, kept: &[f32], [value, slope]: [&mut [f32]; 2]| {
        unfold(f, cell.clip, plan.sums, kept, value, slope);
    };
    let [i, si, f, sf, g, sg, o, so, new_c, shown, slope, standard] = blocks_mut(memory, hn);
    match cell.kind {
        CellKind::Lstm { coupled } => {
            let [ki, kf, kg, ko] = blocks(kept, hn);
            let [di, df, dg, d_o] = blocks_mut(d, hn);
            let [pi, pf, po] = if cell.peepholes { blocks(p.peepholes, hn) } else { [&[][..]; 3] };
            unfold(gate0, ki, [i, si]);
            if coupled {
                f.iter_mut().zip(&*i).for_each(|(f, i)| *f = 1.0 - i);
            } else {
                unfold(gate1, kf, [f, sf]);
            }
            unfold(cell.candidate, kg, [g, sg]);
            unfold(gate2, ko, [o, so]);
            product(f, c, new_c);
            add_product(i, g, new_c);
            // What the output activation is applied to, its value, and its derivative.
            shown.copy_from_slice(new_c);
            let mut scale = 1.0;
            if let Some(epsilon) = cell.layer_norm {
                scale = standardize(shown, epsilon);
                standard.copy_from_slice(shown);
                let (gain, offset) = p.norm_c.split_at(hn);
                shown.iter_mut().zip(gain).zip(offset).for_each(|((v, g), o)| *v = *v * g + o);
            }
            let clip = cell.clip.filter(|_| cell.clip_output);
            slope.copy_from_slice(shown);
            clamp(clip, shown);
            // Where the input was clamped is seen in it; `dg` is free until later.
            dg.copy_from_slice(slope);
            slope.copy_from_slice(shown);
            activate_slice(cell.output, shown);
            slopes(cell.output, shown, slope);
            stop_at(clip, dg, slope);
            if !output.is_empty() {
                product(o, shown, output);
            }
            for j in 0..hn {
                d_o[j] = dh[j] * shown[j] * so[j];
                slope[j] *= dh[j] * o[j];
            }
            if cell.layer_norm.is_some() {
                let (gain, offset) = sum_norm_c.split_at_mut(hn);
                add_product(slope, standard, gain);
                add(slope, offset);
                by_norm(slope, &p.norm_c[..hn], standard, scale);
            }
            // `slope` is what comes to the new c through h; `shown` what the old one gets without a gate.
            shown.fill(0.0);
            if let Some(shares) = zoneout_c {
                unmix(shares, dc, shown);
            }
            add(slope, dc);
            add_product(d_o, po, dc);
            for j in 0..hn {
                df[j] = dc[j] * c[j];
                di[j] = dc[j] * g[j];
                dg[j] = dc[j] * i[j] * sg[j];
                dc[j] = dc[j] * f[j] + shown[j];
            }
            if coupled {
                di.iter_mut().zip(&mut *df).for_each(|(di, df)| *di -= core::mem::take(df));
            } else {
                df.iter_mut().zip(sf).for_each(|(d, s)| *d *= *s);
            }
            di.iter_mut().zip(si).for_each(|(d, s)| *d *= *s);
            add_product(di, pi, dc);
            add_product(df, pf, dc);
            if cell.peepholes {
                let [pi, pf, po] = blocks_mut(sum_peepholes, hn);
                add_product(di, c, pi);
                add_product(df, c, pf);
                add_product(d_o, new_c, po);
            }
        }
        CellKind::Gru { .. } => {
            let [kr, kz, kn, q] = blocks(kept, hn);
            let [dr, dz, dn, dq] = blocks_mut(d, hn);
            let ([r, sr], [z, sz], [n, sn]) = ([i, si], [f, sf], [g, sg]);
            unfold(gate0, kr, [r, sr]);
            unfold(gate1, kz, [z, sz]);
            unfold(cell.candidate, kn, [n, sn]);
            for j in 0..hn {
                dn[j] = dh[j] * (1.0 - z[j]) * sn[j];
                dz[j] = dh[j] * (h[j] - n[j]) * sz[j];
                dr[j] = dn[j] * q[j] * sr[j];
                dq[j] = dn[j] * r[j];
                direct[j] += dh[j] * z[j];
            }
        }
        CellKind::MinGru => {
            let [kz, kn] = blocks(kept, hn);
            let [dz, dn] = blocks_mut(d, hn);
            unfold(gate0, kz, [i, si]);
            unfold(cell.candidate, kn, [g, sg]);
            for j in 0..hn {
                dz[j] = dh[j] * (g[j] - h[j]) * si[j];
                dn[j] = dh[j] * i[j] * sg[j];
                direct[j] += dh[j] * (1.0 - i[j]);
            }
        }
        CellKind::MinLstm => {
            let [kf, ki, kn] = blocks(kept, hn);
            let [df, di, dn] = blocks_mut(d, hn);
            unfold(gate0, kf, [f, sf]);
            unfold(gate1, ki, [i, si]);
            unfold(cell.candidate, kn, [g, sg]);
            for j in 0..hn {
                let both = both(f[j], i[j]);
                let new = (f[j] * h[j] + i[j] * g[j]) / both;
                // Divided first: where both gates round to 0, their quotients are 0.
                df[j] = dh[j] * (h[j] - new) * (sf[j] / both);
                di[j] = dh[j] * (g[j] - new) * (si[j] / both);
                dn[j] = dh[j] * (i[j] / both) * sg[j];
                direct[j] += dh[j] * (f[j] / both);
            }
        }
        CellKind::SLstm { exponential_forget, .. } => {
            let [ki, kf, kz, ko] = blocks(kept, hn);
            let [di, df, dz, d_o] = blocks_mut(d, hn);
            i.copy_from_slice(ki);
            f.copy_from_slice(kf);
            clamp(cell.clip, i);
            clamp(cell.clip, f);
            unfold(cell.candidate, kz, [g, sg]);
            unfold(gate2, ko, [o, so]);
            let [c, n, m] = blocks(c, hn);
            let [dc, dn, dm] = blocks_mut(dc, hn);
            for j in 0..hn {
                let s = Stabilized::new(exponential_forget, [i[j], f[j]], [n[j], m[j]]);
                let (c_new, n_new) = (s.f * c[j] + s.i * g[j], s.f * n[j] + s.i);
                let ratio = c_new / n_new;
                let to_ratio = dh[j] * o[j] / n_new;
                let (to_c, to_n) = (dc[j] + to_ratio, dn[j] - to_ratio * ratio);
                d_o[j] = dh[j] * ratio * so[j];
                dz[j] = to_c * s.i * sg[j];
                let by_i = (to_c * g[j] + to_n) * s.i;
                // f does not depend on anything where it is at its limit of 1.
                let by_f = if s.kept < s.top { (to_c * c[j] + to_n * n[j]) * s.f } else { 0.0 };
                let to_top = dm[j] - by_i - by_f;
                let to_kept = by_f + if s.keeps { to_top } else { 0.0 };
                di[j] = by_i + if s.keeps { 0.0 } else { to_top };
                df[j] = to_kept * if exponential_forget { 1.0 } else { 1.0 / (1.0 + f[j].exp()) };
                (dc[j], dn[j], dm[j]) = (to_c * s.f, to_n * s.f, to_kept);
            }
            stop_at(cell.clip, ki, di);
            stop_at(cell.clip, kf, df);
        }
        // SimpleRNN and IndRNN.
        _ => {
            unfold(cell.candidate, kept, [i, si]);
            product(dh, si, d);
        }
    }
}

/// The divisor of a minimal LSTM, `f + i`. If both gates round to 0, the quotient must not be NaN; a NaN stays NaN.
fn both(f: f32, i: f32) -> f32 {
    let sum = f + i;
    if sum < 1e-37 { 1e-37 } else { sum }
}

/// Back through [`candidate`]: the gradients of the sums of z and n.
pub(super) fn by_candidate(plan: &Plan, a: Back<'_>) {
    let hn = plan.h;
    let [z, sz, n, sn] = blocks_mut(&mut a.memory[..4 * hn], hn);
    let [_, kz, kn] = blocks(a.kept, hn);
    let [_, dz, dn] = blocks_mut(a.d, hn);
    let (cell, sums) = (&plan.cell, plan.sums);
    unfold(cell.gates[1], cell.clip, sums, kz, z, sz);
    unfold(cell.candidate, cell.clip, sums, kn, n, sn);
    for j in 0..hn {
        dn[j] = a.dh[j] * (1.0 - z[j]) * sn[j];
        dz[j] = a.dh[j] * (a.h[j] - n[j]) * sz[j];
        a.direct[j] += a.dh[j] * z[j];
    }
}

/// Back through [`reset`], from what comes back to `r ∘ h` in `a.dh`: the gradient of the sum of r, and `r ∘ h` again.
/// `factors` are those on h, if there are any.
pub(super) fn by_reset(plan: &Plan, a: Back<'_>, factors: &[f32]) {
    let hn = plan.h;
    let [r, sr] = blocks_mut(&mut a.memory[..2 * hn], hn);
    unfold(plan.cell.gates[0], plan.cell.clip, plan.sums, &a.kept[..hn], r, sr);
    for j in 0..hn {
        let factor = if factors.is_empty() { 1.0 } else { factors[j] };
        let h = a.h[j] * factor;
        a.d[j] = a.dh[j] * h * sr[j];
        a.output[j] = r[j] * h;
        a.direct[j] += a.dh[j] * r[j] * factor;
    }
}
