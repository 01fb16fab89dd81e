//! The policy author guide shows code that compiles: the examples of this crate.

#[test]
fn guide_shows_the_examples_as_they_are() {
    let guide = include_str!("../../docs/policy-authors.md");
    let examples = [
        include_str!("../examples/minimal.rs"),
        include_str!("../examples/scratch.rs"),
        include_str!("../examples/most.rs"),
    ];
    for example in examples {
        let (_, body) = example.split_once("\n\n").expect("a first line of documentation");
        assert!(
            guide.contains(&format!("```rust\n{body}```")),
            "docs/policy-authors.md shows another example:\n{body}"
        );
    }
}
