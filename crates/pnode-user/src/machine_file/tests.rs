use super::*;
use crate::machine::ShapeError;
use crate::sys;
use pnode_core::{Depth, FeatureError, Request};

const EVERYTHING: &str = "\
# A comment, and a blank line.

node dram0 ordinary 64MiB watermarks 2MiB 3MiB 1024frames # another one
\tnode hbm ordinary 1GiB class hbm latency 80ns
node far.tier-1 private 4096frames doors RECLAIM|DEMOTION class far bandwidth 12345MiB/s
node zip compressed 1MiB holds 4MiB
node tight compressed 256frames holds 512frames doors RECLAIM|DEMOTION|WRITE_FENCE
node _shut private 1frames class device-buffer doors NONE memory hugetlb
distance dram0 later 21
distance hbm -> zip 255
cpuset batch hbm far.tier-1
cpuset all dram0 hbm
swap 16MiB
delays counted
node later ordinary 1frames
hole dram0 0KiB 1MiB
zone dram0 16MiB
hole hbm 512MiB 256frames
zone dram0 32MiB reserve 2MiB
hole tight 0frames 8frames
node thp ordinary 1frames memory huge
node real ordinary 1frames memory numa:3
node dax private 1frames class far memory /dev/dax0.0
";

fn read(text: &str) -> MachineFile {
    text.parse().unwrap_or_else(|error: MachineFileError| panic!("{}", error.in_text(text)))
}

#[test]
fn everything_that_the_grammar_has_is_read() {
    let file = read(EVERYTHING);
    let frames = |mib: u64| (mib << 20) / sys::page_bytes() as u64;
    let doors = Features::RECLAIM | Features::DEMOTION;
    let specs: Vec<NodeSpec> = file.nodes().map(|(_, spec)| *spec).collect();
    assert_eq!(
        specs,
        [
            NodeSpec::ordinary(frames(64))
                .watermarks(Watermarks::new(frames(2), frames(3), 1024).unwrap())
                .zone(frames(16), 0)
                .zone(frames(32), frames(2))
                .hole(0, frames(1)),
            NodeSpec::ordinary(frames(1024))
                .class(MemoryClass::new("hbm", 80, MemoryClass::HBM.bandwidth_mib_s()))
                .hole(frames(512), 256),
            NodeSpec::private(MemoryClass::new("far", MemoryClass::FAR.latency_ns(), 12345), 4096)
                .features(doors),
            NodeSpec::compressed(frames(1), frames(4)),
            NodeSpec::compressed(256, 512).features(doors | Features::WRITE_FENCE).hole(0, 8),
            NodeSpec::private(MemoryClass::DEVICE_BUFFER, 1),
            NodeSpec::ordinary(1),
            NodeSpec::ordinary(1),
            NodeSpec::ordinary(1),
            NodeSpec::private(MemoryClass::FAR, 1),
        ]
    );
    let [dram0, hbm, far, zip, later] =
        ["dram0", "hbm", "far.tier-1", "zip", "later"].map(|name| file.node(name).unwrap());
    assert_eq!(file.name(later), Some("later"));
    for (from, to, distance) in [
        (dram0, later, 21),
        (later, dram0, 21),
        (hbm, zip, 255),
        (zip, hbm, 20),
        (zip, far, 20),
        (zip, zip, 10),
    ] {
        assert_eq!(file.distance(from, to), distance, "{from:?} to {to:?}");
    }
    assert_eq!(file.cpuset("batch"), Some(&NodeMask::of(hbm).with(far)));
    assert_eq!(file.cpusets().count(), 2);
    assert_eq!(file.swap(), Some(frames(16)));
    assert_eq!(file.delays(), Some(Delays::Counted));
    assert_eq!((file.node("nobody"), file.cpuset("nobody")), (None, None));
    assert_eq!(file.find(NodeSpec::is_private), Some(far));
    let memory = |name| file.memory(file.node(name).unwrap()).unwrap().clone();
    assert_eq!(
        [memory("hbm"), memory("thp"), memory("_shut")],
        [Memory::File, Memory::Huge, Memory::HugeTlb]
    );
    assert_eq!([memory("real"), memory("dax")], [Memory::Numa(3), Memory::Device("/dev/dax0.0".into())]);
}

#[test]
fn what_is_written_reads_back() {
    for text in [
        EVERYTHING,
        "node n ordinary 1frames",
        "node a ordinary 3frames\nnode b ordinary 1frames\ndistance a b 20",
    ] {
        let file = read(text);
        let written = file.to_string();
        assert_eq!(read(&written), file, "{written}");
        assert_eq!(read(&written).to_string(), written);
    }
}

/// `text` has its mistake at the word that stands between « and ».
#[track_caller]
fn wrong(marked: &str, problem: Problem) {
    let text = marked.replace(['«', '»'], "");
    let error = text.parse::<MachineFile>().expect_err(&text);
    assert_eq!(error.problem, problem, "{}", error.in_text(&text));
    let before = marked.split('«').next().unwrap();
    let line = before.matches('\n').count() as u32 + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() as u32 + 1;
    let width = marked.split(['«', '»']).nth(1).unwrap().chars().count() as u32;
    assert_eq!((error.line, error.column, error.width), (line, column, width), "{}", error.in_text(&text));
    // What the error shows marks the same word.
    let shown = error.in_text(&text).to_string();
    let mark = shown.lines().last().unwrap();
    assert_eq!(mark.matches('^').count() as u32, width, "{shown}");
    assert_eq!(mark.chars().count() as u32, 2 + column - 1 + width, "{shown}");
}

#[test]
fn each_mistake_is_named_where_it_stands() {
    let missing = |what| Problem::Missing { what };
    let page = sys::page_bytes();
    wrong("«nodes» a ordinary 1MiB", Problem::Statement);
    wrong("# ä\n «ñode» a ordinary 1MiB", Problem::Statement);
    wrong("«node»", missing("a name"));
    wrong("node «a»", missing("ordinary, private or compressed"));
    wrong("node «1a» ordinary 1MiB", Problem::Name);
    wrong("node «ä» ordinary 1MiB", Problem::Name);
    wrong(&format!("node «{}» ordinary 1MiB", "a".repeat(33)), Problem::Name);
    wrong("node a «plain» 1MiB", Problem::Kind);
    wrong("node a «ordinary»", missing("the node's size, as 64MiB"));
    for size in ["64", "MiB", "-1MiB", "+1MiB", "1mib", "1.5GiB", "frames", "0x1frames"] {
        wrong(&format!("node a ordinary «{size}»"), Problem::Size);
    }
    wrong("node a ordinary «64» MiB", Problem::Size);
    wrong("node a ordinary «1KiB»", Problem::NotWhole { page });
    for size in ["0frames", "0MiB", "16777217frames", "99999999999999999999frames", "99999999999999999999GiB"]
    {
        wrong(&format!("node a ordinary «{size}»"), Problem::Frames { least: 1, most: 1 << 24 });
    }
    wrong("node a ordinary 1MiB «fast»", Problem::Property);
    wrong("node a ordinary 1MiB «class»", missing("a class of memory, as dram"));
    wrong("node a ordinary 1MiB class «nic»", Problem::Class);
    wrong("node a ordinary 1MiB class hbm «class» hbm", Problem::Twice);
    wrong("node a ordinary 1MiB «memory»", missing("what its memory is made of, as huge"));
    for memory in ["tlb", "numa", "numa:", "numa:-1", "numa:+1", "numa:65536", "dev/dax0.0"] {
        wrong(&format!("node a ordinary 1MiB memory «{memory}»"), Problem::Memory);
    }
    wrong("node a ordinary 1MiB latency «10»", Problem::Quantity { unit: "ns" });
    wrong("node a ordinary 1MiB latency «0ns»", Problem::Quantity { unit: "ns" });
    wrong("node a ordinary 1MiB bandwidth «9999999999MiB/s»", Problem::Quantity { unit: "MiB/s" });
    wrong("node a ordinary 1MiB «doors» RECLAIM", Problem::OrdinaryDoors);
    wrong("node a private «1MiB» doors RECLAIM", missing("the class of a private node, as: class far"));
    wrong("node a private 1MiB class far doors «RECLAIM|»", Problem::Door);
    wrong("node a private 1MiB class far doors «reclaim»", Problem::Door);
    let needs = FeatureError::Needs { feature: Features::DEMOTION, needed: Features::RECLAIM };
    wrong("node a private 1MiB class far doors «DEMOTION»", Problem::Doors(needs));
    wrong("node a private 1MiB class far «holds» 1MiB", Problem::Holds);
    wrong("node a compressed «1MiB»", missing("what it takes, as: holds 192MiB"));
    wrong(
        "node a compressed 1MiB holds «4294967296frames»",
        Problem::Frames { least: 1, most: u32::MAX.into() },
    );
    wrong("node a ordinary 1MiB «watermarks»", missing("the min watermark, as 1MiB"));
    wrong("node a ordinary 1MiB watermarks «1frames»", missing("the low watermark, as 2MiB"));
    wrong("node a ordinary 1MiB watermarks 1frames «2frames»", missing("the high watermark, as 4MiB"));
    wrong("node a ordinary 9frames watermarks «1» 2frames 3frames", Problem::Size);
    wrong(
        "node a ordinary 9frames watermarks «0frames» 2frames 3frames",
        Problem::Frames { least: 1, most: 1 << 24 },
    );
    wrong("node a ordinary 9frames watermarks 2frames «1frames» 3frames", Problem::NotRising);
    wrong("node a ordinary 9frames watermarks 2frames 4frames «3frames»", Problem::NotRising);
    wrong("node a ordinary 9frames watermarks 1frames 2frames «9frames»", Problem::Watermarks { frames: 9 });
    wrong("node a ordinary 9frames watermarks 1frames 2frames 3frames «4frames»", Problem::Property);
    let marks = "watermarks 1frames 1frames 1frames";
    wrong(&format!("node a ordinary 9frames {marks} «watermarks» 1frames 1frames 1frames"), Problem::Twice);
    wrong(
        "node a compressed 9frames «watermarks» 1frames 1frames 1frames holds 9frames",
        Problem::StoreWatermarks,
    );
    let two = "node a ordinary 1MiB\nnode b ordinary 1MiB\n";
    wrong(&format!("{two}node «a» ordinary 1MiB"), Problem::Taken { line: 1 });
    wrong(&format!("{two}distance a «c» 20"), Problem::Unknown);
    wrong(&format!("{two}distance a «a» 20"), Problem::Itself);
    for distance in ["10", "0", "256", "x", "-20"] {
        wrong(&format!("{two}distance a b «{distance}»"), Problem::Distance);
    }
    wrong(&format!("{two}distance a -> «b»"), missing("the distance, as 21"));
    wrong(&format!("{two}distance a «->»"), missing("the name of a node"));
    wrong(&format!("{two}distance a b 20 «b»"), Problem::Extra);
    wrong(&format!("{two}distance a b 20\ndistance b -> a «30»"), Problem::Taken { line: 3 });
    wrong(&format!("{two}cpuset «x»"), missing("the name of a node"));
    wrong(&format!("{two}cpuset x a «a»"), Problem::Twice);
    wrong(&format!("{two}cpuset x a\ncpuset «x» b"), Problem::Taken { line: 3 });
    wrong(&format!("{two}hole «c» 1frames 1frames"), Problem::Unknown);
    wrong(&format!("{two}hole «a»"), missing("where the hole begins in the node, as 16MiB"));
    wrong(&format!("{two}hole a «0frames»"), missing("the size of the hole, as 1MiB"));
    wrong(&format!("{two}hole a 1frames «0frames»"), Problem::Frames { least: 1, most: 1 << 24 });
    wrong(&format!("{two}hole a 1frames 1frames «1frames»"), Problem::Extra);
    let nine = "node a ordinary 9frames watermarks 1frames 2frames 5frames\n";
    let outside = ShapeError::HoleOutside { start: 5, frames: 5, span: 9 };
    wrong(&format!("{nine}hole a 5frames «5frames»"), Problem::Shape(outside));
    let overlap = Problem::Shape(ShapeError::HolesOverlap { start: 1 });
    wrong(&format!("{nine}hole a 0frames 2frames\nhole a 1frames «1frames»"), overlap);
    wrong(&format!("{nine}hole a 0frames «4frames»"), Problem::HoleUnderMarks { frames: 5 });
    wrong(&format!("{two}zone «c» 1frames"), Problem::Unknown);
    wrong(&format!("{two}zone «a»"), missing("the size of the zone, as 16MiB"));
    wrong(&format!("{nine}zone a 3frames «2frames»"), Problem::Extra);
    wrong(&format!("{nine}zone a 3frames «reserve»"), missing("the lowmem reserve of the zone, as 1MiB"));
    let left = ShapeError::ZoneSize { frames: 6, left: 6 };
    wrong(&format!("{nine}zone a 3frames\nzone a «6frames»"), Problem::Shape(left));
    let reserve = Problem::Shape(ShapeError::Reserve { kept: 3, frames: 3 });
    wrong(&format!("{nine}zone a «3frames» reserve 3frames"), reserve);
    let empty = Problem::Shape(ShapeError::Empty { zone: 0 });
    wrong(&format!("{nine}zone a 2frames\nhole a 0frames «3frames»"), empty);
    wrong("node a compressed 9frames holds 9frames\nzone a «3frames»", Problem::Shape(ShapeError::Store));
    wrong(&format!("{two}swap 1MiB\n«swap» 1MiB"), Problem::Taken { line: 3 });
    wrong(&format!("{two}swap 1MiB «2MiB»"), Problem::Extra);
    wrong(&format!("{two}delays «sometimes»"), Problem::Delays);
    wrong(&format!("{two}delays counted\n«delays» waited"), Problem::Taken { line: 3 });
    let many: String = (0..64).map(|node| format!("node n{node} ordinary 1frames\n")).collect();
    assert_eq!(read(&many).nodes().len(), 64);
    wrong(&format!("{many}«node» more ordinary 1frames"), Problem::Nodes);
}

#[test]
fn a_file_without_a_node_says_how_to_begin() {
    for text in ["", "\n\n", "# nothing", "swap 1MiB"] {
        let error = text.parse::<MachineFile>().unwrap_err();
        assert_eq!((error.line, error.column, error.problem), (1, 1, Problem::NoNodes));
        assert!(error.in_text(text).to_string().contains("node dram ordinary 64MiB"));
    }
}

#[test]
fn a_file_builds_its_machine() {
    let file = read(
        "node b private 8frames class far\nnode a ordinary 32frames\nnode c ordinary 16frames\ndistance b c 12\n",
    );
    let machine = file.builder().build().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| file.node(name).unwrap());
    assert_eq!([a, b, c].map(|node| machine.free_frames(node)), [32, 8, 16]);
    // Nearest to b is c, as the file says.
    let frame = machine.alloc(Request::page().prefer(b)).unwrap();
    assert_eq!(frame.node(), c);
    machine.free(frame).unwrap();
}

#[test]
fn a_file_s_watermarks_act() {
    let file = read("node a ordinary 32frames watermarks 4frames 8frames 16frames");
    let machine = file.builder().build().unwrap();
    let a = file.node("a").unwrap();
    let taken: Vec<_> = core::iter::from_fn(|| machine.alloc(Request::page()).ok()).collect();
    assert_eq!((taken.len(), machine.free_frames(a)), (28, 4));
    let more = machine.alloc(Request::page().depth(Depth::Emergency)).unwrap();
    taken.into_iter().chain([more]).for_each(|frame| machine.free(frame).unwrap());
}
