//! The policy author guide shows code that compiles: the example of this crate.

#[test]
fn guide_shows_the_example_as_it_is() {
    let guide = include_str!("../../docs/policy-authors.md");
    let example = include_str!("../examples/minimal.rs");
    let (_, body) = example.split_once("\n\n").expect("a first line of documentation");
    assert!(guide.contains(&format!("```rust\n{body}```")), "docs/policy-authors.md shows another example:\n{body}");
}
