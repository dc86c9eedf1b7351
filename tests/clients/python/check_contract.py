"""Compares our .proto files with the published ones, descriptor by descriptor.

Usage: check_contract.py [FOLDER]

FOLDER holds the .proto files; it defaults to the `proto` folder of this
repository. The published side are the descriptors inside the packages
`yandexcloud` and `googleapis-common-protos`. Every difference goes to standard
output, one a line, and makes the exit code 1.

Both sides are flattened into facts, `subject -> value`, for example

    field yandex.cloud.operation.Operation.done: number  ->  6
    method yandex.cloud.operation.OperationService.Get: http 0  ->  GET /operations/{operation_id}

so that one plain comparison covers everything.
"""

import fnmatch
import importlib
import importlib.resources
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# Imported for their extensions: without them options would parse as unknown fields.
import google.api.annotations_pb2 as annotations
import yandex.cloud.api.operation_pb2
import yandex.cloud.validation_pb2  # noqa: F401
from google.protobuf import descriptor_pb2, text_format, unknown_fields
from grpc_tools import protoc

FieldProto = descriptor_pb2.FieldDescriptorProto


@dataclass(frozen=True)
class Exemption:
    """A difference that is meant.

    `side` is "ours" for facts that only we state and "published" for facts that
    only the published files state. `count` is exact: the check fails when the
    pattern covers more facts, or fewer. Facts that both sides state differently
    cannot be excused.
    """

    side: str
    pattern: str
    count: int
    reason: str


EXEMPTIONS = [
    Exemption(
        "ours",
        "method yandex.cloud.operation.OperationService.Cancel: http 1",
        1,
        "the published guide cancels with POST, the published definition with GET; we serve both",
    ),
    Exemption(
        "ours",
        "method yandex.cloud.*: option idempotency_level",
        9,
        "we mark the methods that only read",
    ),
    Exemption(
        "ours",
        "field yandex.cloud.operation.Operation.description: option yandex.cloud.length",
        1,
        "the published file states this limit in a comment",
    ),
    Exemption(
        "ours",
        "field yandex.cloud.compute.v1.*: option yandex.cloud.required",
        7,
        "the published file states its limits in comments",
    ),
    Exemption(
        "ours",
        "field yandex.cloud.compute.v1.*: option yandex.cloud.length",
        19,
        "the published file states its limits in comments",
    ),
    Exemption(
        "ours",
        "field yandex.cloud.compute.v1.*: option yandex.cloud.pattern",
        6,
        "the published file states its limits in comments",
    ),
    Exemption(
        "ours",
        "field yandex.cloud.compute.v1.*: option yandex.cloud.value",
        4,
        "the published file states its limits in comments",
    ),
    Exemption(
        "ours",
        "field yandex.cloud.compute.v1.*: option yandex.cloud.size",
        2,
        "the published file states its limits in comments",
    ),
    Exemption(
        "ours",
        "field yandex.cloud.compute.v1.*: option yandex.cloud.map_key",
        2,
        "the published file states its limits in comments",
    ),
    Exemption(
        "ours",
        "oneof yandex.cloud.compute.v1.CreateImageRequest.source: option yandex.cloud.exactly_one",
        1,
        "the published file states its limits in comments",
    ),
    Exemption(
        "published",
        "method yandex.cloud.compute.v1.ImageService.*AccessBindings",
        3,
        "access bindings are not served",
    ),
    Exemption(
        "published",
        "method yandex.cloud.iam.v1.IamTokenService.CreateForServiceAccount",
        1,
        "the contract has Create alone",
    ),
    Exemption(
        "published",
        "message yandex.cloud.iam.v1.CreateIamTokenForServiceAccountRequest",
        1,
        "belongs to a method that is left out",
    ),
]

# Options of files speak to code generators of other languages. We state the one
# that a generator refuses to work without.
COMPARED_FILE_OPTIONS = {"go_package"}


# Files of services that we add. Nothing is published that they could differ from.
OUR_OWN_FILES = "desktopimages/"


class Facts:
    """What a set of files declares: the elements, and the facts about each."""

    def __init__(self):
        self.elements = {}

    def element(self, kind, name):
        """Starts an element and returns the dictionary of its facts."""
        return self.elements.setdefault(f"{kind} {name}", {})

    def add_file(self, file):
        facts = self.element("file", file.name)
        facts["package"] = file.package
        facts["syntax"] = file.syntax or "proto2"
        for name, value in options(file.options).items():
            if name.removeprefix("option ") in COMPARED_FILE_OPTIONS:
                facts[name] = value
        for message in file.message_type:
            self.add_message(message, file.package, file.name)
        for enum in file.enum_type:
            self.add_enum(enum, file.package, file.name)
        for extension in file.extension:
            facts = self.element("extension", f"{file.package}.{extension.name}")
            facts["file"] = file.name
            facts["extendee"] = extension.extendee
            facts.update(field_facts(extension))
        for service in file.service:
            self.add_service(service, file.package, file.name)

    def add_message(self, message, scope, file):
        full_name = f"{scope}.{message.name}"
        facts = self.element("message", full_name)
        facts["file"] = file
        facts["reserved"] = reserved(message, past_the_end=1)
        facts.update(options(message.options))
        for oneof in message.oneof_decl:
            self.element("oneof", f"{full_name}.{oneof.name}").update(options(oneof.options))
        for field in message.field:
            facts = self.element("field", f"{full_name}.{field.name}")
            facts.update(field_facts(field))
            if field.HasField("oneof_index"):
                facts["oneof"] = message.oneof_decl[field.oneof_index].name
        for nested in message.nested_type:
            self.add_message(nested, full_name, file)
        for enum in message.enum_type:
            self.add_enum(enum, full_name, file)

    def add_enum(self, enum, scope, file):
        full_name = f"{scope}.{enum.name}"
        facts = self.element("enum", full_name)
        facts["file"] = file
        facts["reserved"] = reserved(enum, past_the_end=0)
        facts.update(options(enum.options))
        for value in enum.value:
            facts = self.element("value", f"{full_name}.{value.name}")
            facts["number"] = value.number
            facts.update(options(value.options))

    def add_service(self, service, scope, file):
        full_name = f"{scope}.{service.name}"
        facts = self.element("service", full_name)
        facts["file"] = file
        facts.update(options(service.options))
        for method in service.method:
            facts = self.element("method", f"{full_name}.{method.name}")
            facts["input"] = method.input_type
            facts["output"] = method.output_type
            facts["client streaming"] = method.client_streaming
            facts["server streaming"] = method.server_streaming
            facts.update(options(method.options))
            if method.options.HasExtension(annotations.http):
                del facts["option google.api.http"]
                rule = method.options.Extensions[annotations.http]
                for index, binding in enumerate([rule, *rule.additional_bindings]):
                    facts[f"http {index}"] = http_rule(binding)

    def count(self, kind):
        return sum(1 for name in self.elements if name.startswith(f"{kind} "))


def field_facts(field):
    facts = {
        "number": field.number,
        "type": FieldProto.Type.Name(field.type),
        "type name": field.type_name,
        "label": FieldProto.Label.Name(field.label),
        "optional keyword": field.proto3_optional,
        "default": field.default_value,
        "JSON name": field.json_name or json_name(field.name),
    }
    facts.update(options(field.options))
    return facts


def json_name(name):
    """lowerCamelCase as protoc derives it."""
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def reserved(element, past_the_end):
    """Reserved numbers and names. Messages exclude the end of a range, enums include it."""
    ranges = sorted((each.start, each.end - past_the_end) for each in element.reserved_range)
    return ", ".join([f"{start} to {end}" for start, end in ranges] + sorted(element.reserved_name))


def options(message):
    """The options that are set, as facts. An option without a definition is one by its number."""
    facts = {}
    for field, value in message.ListFields():
        if field.message_type is not None:
            value = text_format.MessageToString(value, as_one_line=True)
        elif field.enum_type is not None:
            value = field.enum_type.values_by_number[value].name
        facts[f"option {field.full_name if field.is_extension else field.name}"] = value
    for unknown in unknown_fields.UnknownFieldSet(message):
        facts[f"option number {unknown.field_number}"] = unknown.data
    return facts


def http_rule(rule):
    kind = rule.WhichOneof("pattern")
    path = getattr(rule, kind) if kind else ""
    if kind == "custom":
        kind, path = path.kind, path.path
    return f"{(kind or 'none').upper()} {path} body={rule.body!r} response_body={rule.response_body!r}"


def compile_folder(folder):
    """The descriptors of all .proto files in a folder, those of google.protobuf excepted."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    if not files:
        sys.exit(f"no .proto files in {folder}")
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "descriptors.pb"
        arguments = ["protoc", f"-I{folder}", f"-I{well_known}", f"--descriptor_set_out={output}"]
        if protoc.main([*arguments, *files]) != 0:
            sys.exit(f"the .proto files in {folder} do not compile")
        return descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file


def published_file(name):
    """The descriptor of a published file, or None where there is no such file."""
    module = name.removesuffix(".proto").replace("/", ".").replace("-", "_") + "_pb2"
    try:
        descriptor = importlib.import_module(module).DESCRIPTOR
    except ModuleNotFoundError:
        return None
    return descriptor_pb2.FileDescriptorProto.FromString(descriptor.serialized_pb)


def compare(ours, published):
    """Yields (side, fact, text) for each difference.

    An element that one side lacks is one difference, its facts are not repeated.
    """
    for name in sorted(ours.keys() | published.keys()):
        if name not in published:
            yield "ours", name, "we declare it, the published files do not"
        elif name not in ours:
            yield "published", name, "the published files declare it, we do not"
        else:
            mine, theirs = ours[name], published[name]
            for fact in sorted(mine.keys() | theirs.keys()):
                subject = f"{name}: {fact}"
                if fact not in theirs:
                    yield "ours", subject, f"we have {mine[fact]!r}, the published files nothing"
                elif fact not in mine:
                    yield "published", subject, f"the published files have {theirs[fact]!r}, we nothing"
                elif mine[fact] != theirs[fact]:
                    yield "both", subject, f"we have {mine[fact]!r}, the published files {theirs[fact]!r}"


def is_inside(name, left_out):
    """Whether an element lies within one that is left out: fields of a message, and so on."""
    path = name.split(" ", 1)[1]
    return any(path.startswith(outer.split(" ", 1)[1] + ".") for outer in left_out)


def unexcused(differences):
    """The lines to report: differences that no exemption covers, exemptions whose count is off."""
    uses = Counter()
    lines = []
    left_out = set()
    for side, subject, text in differences:
        excuse = next(
            (e for e in EXEMPTIONS if e.side == side and fnmatch.fnmatchcase(subject, e.pattern)),
            None,
        )
        if excuse is not None:
            uses[excuse] += 1
            if side == "published":
                left_out.add(subject)
        else:
            lines.append((side, subject, text))
    report = [
        f"{subject}: {text}"
        for side, subject, text in lines
        if not (side == "published" and is_inside(subject, left_out))
    ]
    for excuse in EXEMPTIONS:
        if uses[excuse] != excuse.count:
            report.append(
                f"exemption {excuse.side} {excuse.pattern!r}: applies {uses[excuse]} times, "
                f"the table says {excuse.count}"
            )
    return report


def main():
    default = Path(__file__).resolve().parents[3] / "proto"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    ours, published = Facts(), Facts()
    for file in compile_folder(folder):
        if file.name.startswith(OUR_OWN_FILES):
            continue
        ours.add_file(file)
        counterpart = published_file(file.name)
        if counterpart is not None:
            published.add_file(counterpart)

    report = unexcused(compare(ours.elements, published.elements))
    for line in report:
        print(line)
    kinds = ["file", "message", "field", "enum", "value", "extension", "service", "method"]
    counts = ", ".join(f"{ours.count(kind)} {kind}s" for kind in kinds)
    if report:
        print(f"contract: {len(report)} differences in {counts}")
        sys.exit(1)
    meant = sum(excuse.count for excuse in EXEMPTIONS)
    print(f"contract: {counts} equal to the published ones; {meant} listed exemptions")


if __name__ == "__main__":
    main()
