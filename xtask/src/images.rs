//! `cargo xtask images`: the container images of Pith and of its tests, as archives for `ctr images import` and `skopeo copy`.
//!
//! Neither a daemon nor a registry takes part, and nothing is installed into an image: each is a few static programs and what
//! they read.

mod oci;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::oci::{Archive, Image, Layer};
use crate::cluster::programs;
use crate::command::{capture, run as run_command};
use crate::terminal::seconds;
use crate::tools;
use crate::workspace::{cargo_rustc, relative, root, target};

/// The version of the pause image. It changes with `tests/cluster/pause.c`.
const PAUSE: &str = "1";
/// Where the certificates are, on Debian and in the images: where Go and Rust look for them.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where the guard is, in each image that has it.
const GUARD: &str = "usr/local/bin/pith-guard";
/// The user of the `pith` image, by number, as a kubelet that is told `runAsNonRoot` cannot look up a name.
const PITH_USER: u32 = 65532;
/// As [`PITH_USER`], of the `pause` image.
const PAUSE_USER: u32 = 65535;

/// What to build, for what, and under which names.
#[derive(Args)]
pub(crate) struct Options {
    /// The images. All of them where none is named.
    #[arg(value_enum)]
    images: Vec<Name>,
    /// Where the archives go, each as <image>.tar.
    #[arg(long, value_name = "DIR", default_value_os_t = target().join("images"))]
    output: PathBuf,
    /// A platform that each archive is to have. May be given several times; this machine's where it is not given.
    #[arg(long = "platform", value_enum)]
    platforms: Vec<Platform>,
    /// How our own programs are built.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// What stands before the image in its name, which is `<PREFIX>/<image>:<version>`.
    #[arg(long = "name", value_name = "PREFIX", default_value = "docker.io/pith")]
    prefix: String,
}

/// An image.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Pith with the JuiceFS client that its controller starts. It has no shell.
    Pith,
    /// Nothing but the guard, for the nodes of the tests: it is built in seconds. Elsewhere `pith` is the guard's image.
    Guard,
    /// The JuiceFS client as a sidecar needs it: beside `sh`, `test`, `mount` and `umount`.
    Juicefs,
    /// The same as the sidecars of the JuiceFS CSI driver need it, for the test of moving from and to it: with `bash` too.
    Mount,
    /// A stand-in for the client of the Enterprise Edition, which nobody here has.
    Enterprise,
    /// csi-provisioner and csi-resizer, where Kubernetes' own images have them, for the tests of the chart.
    Csi,
    /// The pause program of pods in the tests.
    Pause,
    /// A shell and its tools, for applications in the tests.
    App,
}

/// How our own programs are built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Profile {
    /// For use.
    Release,
    /// For trying out: from what `cargo build` has built anyway.
    Dev,
}

/// What an image runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Platform {
    #[value(name = "linux/amd64")]
    Amd64,
    #[value(name = "linux/arm64")]
    Arm64,
}

/// Builds them and says where they are.
pub(crate) fn run(options: &Options) -> Result<()> {
    let images = if options.images.is_empty() { Name::value_variants() } else { &options.images };
    let platforms =
        if options.platforms.is_empty() { vec![Platform::of_this_machine()?] } else { options.platforms.clone() };
    fs::create_dir_all(&options.output).with_context(|| format!("making {}", options.output.display()))?;
    for image in images {
        build(*image, &platforms, options).with_context(|| format!("building the image `{}`", word(image)))?;
    }
    Ok(())
}

/// Builds what the node of a test cluster needs, for this machine. The answer is the archives.
pub(crate) fn for_a_node() -> Result<Vec<PathBuf>> {
    archives(vec![Name::Pause, Name::Guard, Name::Juicefs, Name::App, Name::Enterprise], Profile::Release)
}

/// Builds what the node of the tests needs beside that: what the JuiceFS CSI driver injects runs from it. The answer is the archive.
pub(crate) fn for_the_driver() -> Result<Vec<PathBuf>> {
    archives(vec![Name::Mount], Profile::Release)
}

/// Builds what it takes to run Pith in pods beside that. The answer is the archives.
pub(crate) fn for_pith_on_a_node() -> Result<Vec<PathBuf>> {
    archives(vec![Name::Pith, Name::Csi], Profile::Dev)
}

fn archives(images: Vec<Name>, profile: Profile) -> Result<Vec<PathBuf>> {
    let output = target().join("images");
    let archives = images.iter().map(|image| output.join(format!("{}.tar", word(image)))).collect();
    run(&Options { images, output, platforms: Vec::new(), profile, prefix: "docker.io/pith".into() })?;
    Ok(archives)
}

fn build(image: Name, platforms: &[Platform], options: &Options) -> Result<()> {
    let started = Instant::now();
    let names = platforms.iter().map(word).collect::<Vec<_>>().join(", ");
    let reference = format!("{}/{}", options.prefix, word(&image));
    println!("{reference}:{}  {names}", image.version());
    let images = platforms.iter().map(|platform| image.on(*platform, options.profile)).collect::<Result<Vec<_>>>()?;
    let archive = Archive::new(&reference, image.version(), &images)?;
    let place = options.output.join(format!("{}.tar", word(&image)));
    let outcome = if keep(&archive, &place)? { "written" } else { "as it was" };
    let size = archive.size() as f64 / f64::from(1 << 20);
    println!("  {}  {size:.1} MiB", archive.digest);
    println!("  {}  {outcome}  [{}]", relative(&place), seconds(started.elapsed()));
    Ok(())
}

/// Writes an archive where there is no such one yet. The answer is whether it was written.
///
/// Under its final name at once, so that whoever loads it meanwhile never sees half of it.
fn keep(archive: &Archive, place: &Path) -> Result<bool> {
    if File::open(place).is_ok_and(|present| archive.is(present)) {
        return Ok(false);
    }
    let partial = place.with_extension("partial");
    let writing = || format!("writing {}", partial.display());
    let mut file = BufWriter::new(File::create(&partial).with_context(writing)?);
    archive.write(&mut file).with_context(writing)?;
    file.flush().with_context(writing)?;
    fs::rename(&partial, place).with_context(|| format!("moving it to {}", place.display()))?;
    Ok(true)
}

impl Name {
    fn version(self) -> &'static str {
        match self {
            Name::Pith | Name::Guard | Name::App | Name::Csi => env!("CARGO_PKG_VERSION"),
            Name::Juicefs | Name::Mount | Name::Enterprise => tools::JUICEFS,
            Name::Pause => PAUSE,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Name::Pith => "Pith",
            Name::Guard => "Guard for the tests of Pith",
            Name::Juicefs => "JuiceFS client",
            Name::Mount => "JuiceFS client for the tests of Pith beside the JuiceFS CSI driver",
            Name::Enterprise => "Stand-in for the client of the JuiceFS Enterprise Edition, for the tests of Pith",
            Name::Csi => "csi-provisioner and csi-resizer for the tests of Pith",
            Name::Pause => "Pause program for the tests of Pith",
            Name::App => "Application for the tests of Pith",
        }
    }

    /// Of all that is in it: the C library is in every static program, and the list of authorities is Mozilla's.
    fn licenses(self) -> &'static str {
        match self {
            Name::Pith => "Apache-2.0 AND LGPL-2.1-or-later AND MPL-2.0",
            Name::Juicefs | Name::Enterprise => "Apache-2.0 AND GPL-2.0-only AND LGPL-2.1-or-later AND MPL-2.0",
            Name::Mount => "Apache-2.0 AND GPL-2.0-only AND GPL-3.0-or-later AND LGPL-2.1-or-later AND MPL-2.0",
            Name::Csi => "Apache-2.0",
            Name::Guard | Name::Pause => "Apache-2.0 AND LGPL-2.1-or-later",
            Name::App => "GPL-2.0-only AND LGPL-2.1-or-later",
        }
    }

    fn on(self, platform: Platform, profile: Profile) -> Result<Image> {
        let layers = match self {
            Name::Pith => vec![client(platform)?, pith(platform, profile)?],
            Name::Guard => vec![Layer::default().program(GUARD, built(platform, profile, "pith-guard")?)],
            Name::Juicefs => vec![client(platform)?, busybox(platform)?, mount_helper()],
            Name::Mount => vec![client(platform)?, busybox(platform)?, bash(platform)?],
            Name::Enterprise => vec![client(platform)?, busybox(platform)?, stand_in()],
            Name::Csi => vec![csi(platform)?],
            Name::Pause => vec![pause(platform)?],
            Name::App => vec![busybox(platform)?],
        };
        let annotations = json!({
            "org.opencontainers.image.licenses": self.licenses(),
            "org.opencontainers.image.title": self.title(),
            "org.opencontainers.image.version": self.version(),
        });
        let mut config = self.process();
        config["Labels"] = annotations.clone();
        Ok(Image { architecture: platform.architecture(), config, annotations, layers })
    }

    /// What runs in it, as whom and with which environment.
    fn process(self) -> Value {
        let user = |id: u32| format!("{id}:{id}");
        let path = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
        match self {
            Name::Pith => json!({"Entrypoint": ["/usr/local/bin/pith"], "Env": path, "User": user(PITH_USER)}),
            Name::Guard => json!({"Entrypoint": [format!("/{GUARD}")], "Env": path}),
            Name::Juicefs | Name::Mount | Name::Enterprise => json!({"Cmd": ["/usr/local/bin/juicefs"], "Env": path}),
            Name::Csi => json!({"Entrypoint": ["/csi-provisioner"], "User": user(PITH_USER)}),
            Name::Pause => json!({"Entrypoint": ["/pause"], "User": user(PAUSE_USER)}),
            Name::App => json!({"Cmd": ["/bin/sh"], "Env": path}),
        }
    }
}

/// The JuiceFS client and the authorities that it trusts: the part that two images share, and most of their size.
fn client(platform: Platform) -> Result<Layer> {
    tools::package("update-ca-certificates", "ca-certificates")?;
    let client = platform.program(tools::juicefs_for(platform.machine())?)?;
    let certificates = Path::new("/").join(CERTIFICATES);
    Ok(Layer::default().program("usr/local/bin/juicefs", client).copy(CERTIFICATES, certificates))
}

/// Pith itself, and the guard that its sidecars come with.
fn pith(platform: Platform, profile: Profile) -> Result<Layer> {
    Ok(Layer::default()
        .folder("tmp", 0o1777)
        .program("usr/local/bin/pith", built(platform, profile, "pith")?)
        .program(GUARD, built(platform, profile, "pith-guard")?)
        // Pith starts its client without a PATH, and the C library then looks for a name in /bin and /usr/bin alone.
        .link("usr/bin/juicefs", "/usr/local/bin/juicefs")
        .text("etc/passwd", &format!("pith:x:{PITH_USER}:{PITH_USER}:Pith:/tmp:/usr/sbin/nologin\n"))
        .text("etc/group", &format!("pith:x:{PITH_USER}:\n")))
}

/// A program of ours by its package, linked statically, for which there is no profile: what is dynamic in the folder of the same
/// profile shares all but the last step of the build.
fn built(platform: Platform, profile: Profile, package: &str) -> Result<PathBuf> {
    let compiler = platform.compiler()?;
    let mut folder = target();
    let mut build = cargo_rustc();
    build.args(["--package", package, "--bin", package]);
    if !platform.is_of_this_machine() {
        let rust = format!("{}-unknown-linux-gnu", platform.machine());
        tools::rust_target(&rust)?;
        build.args(["--target", &rust]);
        build.env(format!("CARGO_TARGET_{}_LINKER", rust.replace('-', "_").to_uppercase()), compiler);
        folder.push(rust);
    }
    match profile {
        Profile::Release => {
            build.arg("--release");
            folder.push("release");
        }
        Profile::Dev => folder.push("debug"),
    }
    run_command(build.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]))?;
    platform.program(folder.join(package))
}

fn csi(platform: Platform) -> Result<Layer> {
    ensure!(
        platform.is_of_this_machine(),
        "the programs of a cluster are built for this machine only, and not for {}: build the image on one of them",
        word(&platform)
    );
    let folder = programs::csi()?;
    ["csi-provisioner", "csi-resizer"]
        .into_iter()
        .try_fold(Layer::default(), |layer, name| Ok(layer.program(name, platform.program(folder.join(name))?)))
}

fn pause(platform: Platform) -> Result<Layer> {
    let folder = target().join("pause");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let built = folder.join(platform.machine());
    let mut compile = Command::new(platform.compiler()?);
    compile.args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(&built);
    run_command(compile.arg(root().join("tests/cluster/pause.c")))?;
    Ok(Layer::default().program("pause", platform.program(built)?))
}

/// A shell and its tools, which are one program that goes by the name it is called by.
fn busybox(platform: Platform) -> Result<Layer> {
    let kind = word(&platform);
    ensure!(
        platform.is_of_this_machine(),
        "this machine has no packages for {kind}, so no BusyBox: build it on one of them"
    );
    let busybox = platform.program(tools::package("busybox", "busybox-static")?)?;
    let tools = capture(Command::new(&busybox).arg("--list"))?;
    let layer = Layer::default()
        .folder("root", 0o700)
        .folder("tmp", 0o1777)
        .folder("var/log", 0o755)
        .text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        .text("etc/group", "root:x:0:\n");
    let tools = tools.lines().filter(|tool| *tool != "busybox");
    let layer = tools.fold(layer, |layer, tool| layer.link(&format!("bin/{tool}"), "busybox"));
    Ok(layer.program("bin/busybox", busybox))
}

/// Where the JuiceFS CSI driver calls it, with the link by which it calls the client.
fn bash(platform: Platform) -> Result<Layer> {
    let bash = platform.program(tools::package("bash-static", "bash-static")?)?;
    Ok(Layer::default().link("bin/mount.juicefs", "/usr/local/bin/juicefs").program("bin/bash", bash))
}

/// For `mount -t juicefs`, as in JuiceFS's own image.
fn mount_helper() -> Layer {
    Layer::default().link("sbin/mount.juicefs", "/usr/local/bin/juicefs")
}

/// Two scripts where that client is in its own image.
fn stand_in() -> Layer {
    let script = |name: &str| root().join("tests/cluster/enterprise").join(name);
    Layer::default()
        .program("usr/bin/juicefs", script("juicefs"))
        .program("sbin/mount.juicefs", script("mount.juicefs"))
}

impl Platform {
    fn of_this_machine() -> Result<Platform> {
        let found = Platform::value_variants().iter().copied().find(|platform| platform.is_of_this_machine());
        found.context("there are no images for this machine's kind of processor: say another one with `--platform`")
    }

    fn is_of_this_machine(self) -> bool {
        self.machine() == std::env::consts::ARCH
    }

    /// As OCI and Debian call it.
    fn architecture(self) -> &'static str {
        match self {
            Platform::Amd64 => "amd64",
            Platform::Arm64 => "arm64",
        }
    }

    /// As Rust, GCC and Python call it.
    fn machine(self) -> &'static str {
        match self {
            Platform::Amd64 => "x86_64",
            Platform::Arm64 => "aarch64",
        }
    }

    /// As the header of a program calls it: ELF's `e_machine`.
    fn elf(self) -> u16 {
        match self {
            Platform::Amd64 => 62,
            Platform::Arm64 => 183,
        }
    }

    /// The C compiler for it, which links statically.
    fn compiler(self) -> Result<PathBuf> {
        if self.is_of_this_machine() {
            return tools::package("cc", "gcc libc6-dev");
        }
        let (machine, debian) = (self.machine(), self.architecture());
        let package = format!("gcc-{}-linux-gnu libc6-dev-{debian}-cross", machine.replace('_', "-"));
        tools::package(&format!("{machine}-linux-gnu-gcc"), &package)
    }

    /// A program, if it can run on this platform in an image that has nothing else.
    fn program(self, path: PathBuf) -> Result<PathBuf> {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let Some((machine, interpreted)) = elf(&bytes) else { bail!("{} is no 64-bit ELF program", path.display()) };
        ensure!(machine == self.elf(), "{} is not for {}", path.display(), word(&self));
        ensure!(
            !interpreted,
            "{} is not linked statically, so it can't run in an image without libraries",
            path.display()
        );
        Ok(path)
    }
}

/// What ELF calls the machine that a program is for, and whether it needs a loader (a segment PT_INTERP).
fn elf(bytes: &[u8]) -> Option<(u16, bool)> {
    let number = |at: usize, width: usize| {
        let bytes = bytes.get(at..at.checked_add(width)?)?;
        Some(bytes.iter().rev().fold(0, |number: usize, byte| number << 8 | usize::from(*byte)))
    };
    // 64 bits, the lowest byte first.
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, width, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let kinds = (0..count).map(|index| number(table.checked_add(index * width)?, 4)).collect::<Option<Vec<_>>>()?;
    Some((number(18, 2)? as u16, kinds.contains(&3)))
}

/// What is typed for it.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        let this = std::env::current_exe().expect("a test is a program");
        let refused = Platform::of_this_machine().expect("one of them").program(this).expect_err("it needs libc");
        assert!(refused.to_string().ends_with("so it can't run in an image without libraries"), "{refused}");
    }

    #[test]
    fn the_header_of_a_program_says_what_it_runs_on() {
        let mut program = [0; 128];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[18] = 183; // for arm64
        program[32] = 64; // the table of segments begins behind the header
        program[54] = 56; // and has entries of 56 bytes
        program[56] = 1; // one of them
        for (kind, interpreted) in [(1, false), (3, true)] {
            program[64] = kind;
            assert_eq!(elf(&program), Some((Platform::Arm64.elf(), interpreted)));
        }
        for length in [0, 6, 60, 64] {
            assert_eq!(elf(&program[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn names_are_those_of_a_registry() {
        for image in Name::value_variants() {
            let tag = image.version();
            assert!(tag.chars().all(|it| it.is_ascii_alphanumeric() || "._-".contains(it)), "{tag}");
        }
    }
}
