"""Tables of published runs: reading, translating, refusing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simulator.spec.errors import SpecError
from simulator.validation.foreign_table import stage_notation, translate
from simulator.validation.published import PublishedRun
from simulator.validation.rows import parse_rows, read_rows, shipped_rows, write_rows

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "training_runs.csv"

HEADER = (
    "run_id,source,hardware,gpus,model,num_layers,hidden_size,num_heads,seq_len,gbs,mbs,tp,pp,precision,"
    "recompute,peak_memory_gb,confidence,group,other\n"
)
SHAPE = "Paper,h100-sxm5-80gb,8,Tiny,4,512,8,1024,16,1,2,1,bf16"
FOREIGN = (
    f"{HEADER}one,{SHAPE},selective:moe_act + layernorm,12.5,high,tiny@h100@paper,"
    f"grad_reduce_fp32=False; novelty\n"
    f"two,{SHAPE},full (every block),,medium,tiny@h100@paper,\n"
)


def without_place(row: PublishedRun) -> PublishedRun:
    return replace(row, where="")


def test_prose_becomes_fields() -> None:
    one, two = parse_rows(FOREIGN, "t.csv")
    assert (one.recipe.recompute, one.recipe.recompute_modules) == ("selective", ("moe_act", "layernorm"))
    assert (one.recipe.grad_dtype, one.recipe.other) == ("bf16", ("novelty",))
    assert one.measured.peak_memory_bytes == 12.5e9
    assert one.identity.collection == "paper"
    assert (two.recipe.recompute, two.measured.peak_memory_bytes) == ("full", None)
    assert two.where == "t.csv:3"


def test_shipped_tables_survive_writing_and_reading(tmp_path: Path) -> None:
    rows = shipped_rows()
    write_rows(rows, tmp_path / "all.csv")
    assert [*map(without_place, read_rows(tmp_path / "all.csv"))] == [*map(without_place, rows)]
    assert len({row.run_id for row in rows}) == len(rows) > 700


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the collected table is not beside the checkout")
def test_shipped_tables_hold_what_was_collected() -> None:
    collected = {row.run_id: without_place(row) for row in read_rows(REFERENCE)}
    assert {row.run_id: without_place(row) for row in shipped_rows()} == collected


@pytest.mark.parametrize(
    ("change", "line", "column", "value"),
    [
        (("16,1,2,1,bf16,full", "16,1,two,1,bf16,full"), 3, "tp", "two"),
        (("h100-sxm5-80gb,8,", "h100-sxm5-80gb,,"), 2, "gpus", None),
        (("layernorm,12.5", "layernorm,much"), 2, "peak_memory_gb", "much"),
        (("Tiny,4,512", "Tiny,4.5,512"), 2, "num_layers", "4.5"),
        (("medium", "sure"), 3, "confidence", "sure"),
        (("two,Paper", "one,Paper"), 3, "run_id", "one"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_file_line_and_column(
    change: tuple[str, str], line: int, column: str, value: str | None
) -> None:
    with pytest.raises(SpecError) as caught:
        parse_rows(FOREIGN.replace(*change, 1), "t.csv")
    [problem] = caught.value.problems
    assert (problem.file, problem.line, problem.key_path) == ("t.csv", line, column)
    assert value is None or problem.value == value


def test_an_unknown_column_gets_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="num_layers"):
        parse_rows(FOREIGN.replace("num_layers", "num_layrs", 1), "t.csv")


@pytest.mark.parametrize("text", ["", "run_id\n", FOREIGN.replace(",high", "", 1)])
def test_half_a_table_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_rows(text, "t.csv")


def test_stage_layouts_have_one_notation() -> None:
    assert stage_notation("Et*4|(t*4|)*14tmL") == "Et*4|(t*4|)*14tmL"
    listed = "[['embedding', 'decoder'], ['decoder', 'mtp', 'loss']]"
    assert stage_notation(listed) == "Et|tmL"


def test_source_and_recipe_of_the_same_release_are_kept() -> None:
    cells = {"notes": "recipe tiny_config/v1 @ Megatron-Bridge v0.4.1; 25 tables", "dp_overlap": "off (x)"}
    own = translate(cells)
    assert own["recipe_source"] == "Megatron-Bridge v0.4.1 tiny_config/v1"
    assert own["overlap_grad_reduce"] == own["overlap_param_gather"] == "False"
