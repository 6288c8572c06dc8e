from typing import Any

from weir.protocol import tasks_pb2 as pb
from weir.server.services.tasks import SERVICE, TasksService


def test_calls_are_those_of_the_service() -> None:
    methods = pb.DESCRIPTOR.services_by_name["Tasks"].methods_by_name

    assert SERVICE == "weir.v1.Tasks"
    nothing: Any = None
    assert set(TasksService(nothing, nothing).handlers()) == {
        f"/{SERVICE}/{name}" for name in methods
    }


def test_calls_agree_where_they_are_read_before_they_are_parsed() -> None:
    """Fields 1 to 3 of every request, and the texts."""
    for method in pb.DESCRIPTOR.services_by_name["Tasks"].methods:
        fields = {field.name: field.number for field in method.input_type.fields}
        head = (fields["model_name"], fields["model_version"], fields["id"])
        assert head == (1, 2, 3)
        assert fields.get("texts", fields.get("text", 4)) == 4
