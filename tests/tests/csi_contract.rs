//! `proto/csi/csi.proto` beside the descriptor that the specification itself publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use pith_tests::go_tools;
use pith_tests::server::root;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Every message, enum and service of `csi.v1` with what is in it, as lines to compare.
fn describe(set: FileDescriptorSet) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for file in set.file.iter().filter(|file| file.package() == "csi.v1") {
        describe_file(file, &mut found);
    }
    found
}

fn describe_file(file: &FileDescriptorProto, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for message in &file.message_type {
        describe_message("", message, found);
    }
    for it in &file.enum_type {
        describe_enum("", it, found);
    }
    for service in &file.service {
        let methods = service.method.iter().map(|it| {
            let streams = (it.client_streaming(), it.server_streaming());
            format!("{}({}) -> {} {streams:?}", it.name(), it.input_type(), it.output_type())
        });
        found.insert(format!("service {}", service.name()), methods.collect());
    }
}

fn describe_message(parent: &str, message: &DescriptorProto, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let name = format!("{parent}{}", message.name());
    let fields = message.field.iter().map(|it| {
        let one_of = it.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
        let one_of = one_of.map(|it| it.name());
        format!("{} = {}: {:?} {:?} {} {one_of:?}", it.name(), it.number(), it.label(), it.r#type(), it.type_name())
    });
    let reserved = message.reserved_range.iter().map(|it| format!("reserved {}..{}", it.start(), it.end()));
    found.insert(format!("message {name}"), fields.chain(reserved).collect());
    for nested in &message.nested_type {
        describe_message(&format!("{name}."), nested, found);
    }
    for it in &message.enum_type {
        describe_enum(&format!("{name}."), it, found);
    }
}

fn describe_enum(parent: &str, it: &EnumDescriptorProto, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let values = it.value.iter().map(|value| format!("{} = {}", value.name(), value.number()));
    let reserved = it.reserved_range.iter().map(|it| format!("reserved {}..{}", it.start(), it.end()));
    found.insert(format!("enum {parent}{}", it.name()), values.chain(reserved).collect());
}

#[test]
fn the_contract_says_what_the_specification_says() {
    let program = go_tools::build("./descriptor").expect("the program that prints the specification's descriptor");
    let output = Command::new(program).output().expect("it runs");
    let specification = describe(FileDescriptorSet::decode(output.stdout.as_slice()).expect("a descriptor"));
    let ours = protox::compile(["csi.proto"], [root().join("proto/csi")]).expect("it is well formed");
    let ours = describe(ours);
    assert!(ours.len() > 80, "only {} things are compared", ours.len());
    for (name, content) in &ours {
        let wanted = specification.get(name).unwrap_or_else(|| panic!("the specification has no {name}"));
        // A service may lack methods: they are answered with UNIMPLEMENTED. A message that is there is whole.
        let missing: Vec<_> = wanted.difference(content).filter(|_| !name.starts_with("service ")).collect();
        let invented: Vec<_> = content.difference(wanted).collect();
        assert!(missing.is_empty() && invented.is_empty(), "{name} lacks {missing:#?} and has {invented:#?}");
    }
}
