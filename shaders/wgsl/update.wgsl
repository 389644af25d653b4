// A parameter and the states of an optimiser after one step, in place. The definition is `recurve_reference::descend`,
// which says what the rates are.
#import elements
#import nan

struct Params {
    count: u32,
    groups_x: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> rates: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> parameter: array<f32>;
#if HAS_FIRST
@group(0) @binding(4) var<storage, read_write> first: array<f32>;
#end
#if HAS_SECOND
@group(0) @binding(5) var<storage, read_write> second: array<f32>;
#end
#if HAS_THIRD
@group(0) @binding(6) var<storage, read_write> third: array<f32>;
#end

struct Updated {
    parameter: f32,
    states: vec3<f32>,
}

fn updated(w: f32, g: f32, old: vec3<f32>) -> Updated {
    var s = old;
    switch RULE {
        case 0u: {
            var change = g * rates[4];
            if MOMENTUM {
                s.x = s.x * rates[1] + g * rates[2];
                change += s.x * rates[3];
            }
            return Updated(w + change, s);
        }
        case 1u: {
            s.x = s.x * rates[1] + g * g * rates[2];
            var mean = s.x;
            if CENTERED {
                let average = s[AVERAGE] * rates[1] + g * rates[2];
                s[AVERAGE] = average;
                mean -= average * average;
                mean = select(mean, 0.0, mean < 0.0);
            }
            var change = g * rates[6] / (sqrt(mean + rates[3]) + rates[4]);
            if MOMENTUM {
                s.y = s.y * rates[5] + change;
                change = s.y;
            }
            return Updated(w - change * rates[7], s);
        }
        case 2u: {
            s.x += (g - s.x) * rates[1];
            s.y += (g * g - s.y) * rates[2];
            var mean = s.y;
            if AMSGRAD {
                s.z = select(s.z, mean, is_above(mean, s.z));
                mean = s.z;
            }
            return Updated(w - s.x * rates[3] / (sqrt(mean) * rates[4] + rates[5]), s);
        }
        default: {
            let u = s.x * rates[1] + g * rates[2];
            s.x = s.x * rates[3] + g * rates[4];
            return Updated(w - rates[5] * unless_nan(u, sign(u)), s);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    var w = parameter[e];
    var g = gradient[e];
    if DECAY == 1u { g += w * rates[0]; }
    if DECAY == 2u { w -= w * rates[0]; }
    var s = vec3<f32>(0.0);
#if HAS_FIRST
    s.x = first[e];
#end
#if HAS_SECOND
    s.y = second[e];
#end
#if HAS_THIRD
    s.z = third[e];
#end
    let out = updated(w, g, s);
    parameter[e] = out.parameter;
#if HAS_FIRST
    first[e] = out.states.x;
#end
#if HAS_SECOND
    second[e] = out.states.y;
#end
#if HAS_THIRD
    third[e] = out.states.z;
#end
}
