//! No lane stores a single component of a vector in memory that lanes share. WGSL allows such a store to access the
//! whole vector, so it would race with another lane's store to another component, and the compilers of Metal and
//! Direct3D do write the whole vector.

use naga::front::Typifier;
use naga::proc::ResolveContext;
use naga::{AddressSpace, Block, Expression, Function, Handle, Module, Statement, TypeInner};
use recurve_shaders::{reflect, samples};

/// Collects the pointers through which a block stores.
fn stored(block: &Block, out: &mut Vec<Handle<Expression>>) {
    for s in block.iter() {
        match s {
            Statement::Store { pointer, .. } | Statement::Atomic { pointer, .. } => out.push(*pointer),
            Statement::CooperativeStore { data, .. } => out.push(data.pointer),
            Statement::WorkGroupUniformLoad { .. } | Statement::Call { .. } => {}
            Statement::Block(b) => stored(b, out),
            Statement::If { accept, reject, .. } => [accept, reject].into_iter().for_each(|b| stored(b, out)),
            Statement::Switch { cases, .. } => cases.iter().for_each(|c| stored(&c.body, out)),
            Statement::Loop { body, continuing, .. } => [body, continuing].into_iter().for_each(|b| stored(b, out)),
            _ => {}
        }
    }
}

/// Whether a pointer type points to a vector in memory that lanes share.
fn is_shared_vector(module: &Module, ty: &TypeInner) -> bool {
    let shared = |space| matches!(space, AddressSpace::WorkGroup | AddressSpace::Storage { .. });
    match *ty {
        TypeInner::Pointer { base, space } => {
            shared(space) && matches!(module.types[base].inner, TypeInner::Vector { .. })
        }
        TypeInner::ValuePointer { size: Some(_), space, .. } => shared(space),
        _ => false,
    }
}

/// The number of stores in a function to one component of a vector in memory that lanes share.
fn component_stores_of(module: &Module, f: &Function) -> usize {
    let mut types = Typifier::new();
    let context = ResolveContext::with_locals(module, &f.local_variables, &f.arguments);
    for (e, _) in f.expressions.iter() {
        types.grow(e, &f.expressions, &context).unwrap();
    }
    let mut pointers = Vec::new();
    stored(&f.body, &mut pointers);
    let to_component = |pointer: &Handle<Expression>| match f.expressions[*pointer] {
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
            is_shared_vector(module, types.get(base, &module.types))
        }
        _ => false,
    };
    pointers.iter().filter(|p| to_component(p)).count()
}

/// The number of such stores in a module. If a function takes a pointer, the type of its argument shows the memory.
fn component_stores(module: &Module) -> usize {
    let functions = module.functions.iter().map(|(_, f)| f);
    functions.chain(module.entry_points.iter().map(|e| &e.function)).map(|f| component_stores_of(module, f)).sum()
}

#[test]
fn no_kernel_stores_a_component_of_a_shared_vector() {
    let mut stores = 0;
    for (i, v) in samples().iter().enumerate() {
        let module = reflect(&v.compose().unwrap().source).unwrap().module;
        assert_eq!(component_stores(&module), 0, "{}#{i}", v.name());
        let mut all = Vec::new();
        module.entry_points.iter().for_each(|e| stored(&e.function.body, &mut all));
        stores += all.len();
    }
    assert!(stores > samples().len(), "there are stores to look at: {stores}");
}

/// A module whose kernel has this body, with functions before it.
fn module(functions: &str, body: &str) -> Module {
    let source = format!(
        "struct S {{ a: f32, v: vec3<f32> }}
        var<workgroup> tile: array<vec4<f32>, 8>;
        var<workgroup> one: vec2<u32>;
        var<workgroup> matrix: mat4x4<f32>;
        var<workgroup> flat: array<f32, 8>;
        var<private> own: array<vec4<f32>, 8>;
        @group(0) @binding(0) var<storage, read_write> whole: array<vec4<f32>>;
        @group(0) @binding(1) var<storage, read_write> parts: array<S>;
        {functions}
        @compute @workgroup_size(8)
        fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
    );
    naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)))
}

#[test]
fn stores_of_components_are_seen() {
    for body in [
        "tile[i / 4u][i % 4u] = 1.0;",
        "tile[i].x = 1.0;",
        "tile[0][2] = 1.0;",
        "tile[i].y += 1.0;",
        "one[i % 2u]++;",
        "one.x = i;",
        "matrix[i % 4u][1] = 1.0;",
        "whole[i / 4u][i % 4u] = 1.0;",
        "whole[i].w = 1.0;",
        "parts[i].v[i % 3u] = 1.0;",
        "parts[i].v.z = 1.0;",
        "let p = &tile[i]; (*p)[i % 4u] = 1.0;",
        "let p = &whole[i]; (*p).x = 1.0;",
        "if i > 1u { loop { if i > 2u { break; } continuing { tile[i].x = 1.0; } } }",
        "for (var k = 0u; k < 4u; k++) { tile[i][k] = 1.0; }",
        "switch i { case 1u: { } default: { { whole[i].x = 1.0; } } }",
    ] {
        assert_eq!(component_stores(&module("", body)), 1, "{body}");
    }
    for (function, call) in [
        ("fn f(p: ptr<workgroup, vec4<f32>>, i: u32) { (*p)[i] = 1.0; }", "f(&tile[i], i);"),
        ("fn f(p: ptr<workgroup, vec4<f32>>) { (*p).y = 1.0; }", "f(&tile[i]);"),
        ("fn f(p: ptr<workgroup, array<vec4<f32>, 8>>, i: u32) { (*p)[i].x = 1.0; }", "f(&tile, i);"),
        (
            "fn f(p: ptr<workgroup, array<vec4<f32>, 8>>, i: u32) { let q = &(*p)[i]; (*q)[i % 4u] -= 1.0; }",
            "f(&tile, i);",
        ),
        ("fn f(p: ptr<storage, vec4<f32>, read_write>, i: u32) { (*p)[i] = 1.0; }", "f(&whole[i], i);"),
        (
            "fn g(p: ptr<workgroup, vec4<f32>>) { (*p).y = 1.0; } fn f(p: ptr<workgroup, vec4<f32>>) { g(p); }",
            "f(&tile[i]);",
        ),
    ] {
        assert_eq!(component_stores(&module(function, call)), 1, "{function}");
    }
}

#[test]
fn other_stores_are_not_mistaken_for_them() {
    for body in [
        "tile[i] = vec4<f32>(1.0);",
        "flat[i] = tile[i / 4u][i % 4u];",
        "one = vec2<u32>(i, 0u);",
        "matrix[i % 4u] = vec4<f32>();",
        "whole[i] = tile[i];",
        "parts[i].a = 1.0;",
        "parts[i].v = vec3<f32>();",
        "own[i][i % 4u] = 1.0;",
        "var v = vec4<f32>(); v[i % 4u] = 1.0; v.x += 2.0; tile[i] = v;",
    ] {
        assert_eq!(component_stores(&module("", body)), 0, "{body}");
    }
    let function =
        "fn f(p: ptr<function, vec4<f32>>, q: ptr<workgroup, vec4<f32>>, i: u32) { (*p)[i] = 1.0; *q = *p; }";
    assert_eq!(component_stores(&module(function, "var v = vec4<f32>(); f(&v, &tile[i], i);")), 0);
}
