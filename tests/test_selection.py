"""Which profile is chosen: the shipped tree, and a site's own, under simulated resources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from semroute_service.detection import (
    BackendProbe,
    Gpu,
    GpuSource,
    Resources,
    Slurm,
    fits,
    local_servers,
    recommend,
)
from semroute_service.profile import Hardware, load_profiles

if TYPE_CHECKING:
    from semroute_service.profile import Profile

SHIPPED = load_profiles(Path(__file__).parents[1] / "profiles", environment={})


def gpu(kind: str, memory: float | None = None, source: GpuSource = GpuSource.NVML) -> Gpu:
    """GPUs of one type, by default with what they report and not what they are sold with."""
    return Gpu(kind, 4, memory, source, "here")


H100, L4, T4 = gpu("H100", 79.6), gpu("L4", 22.5), gpu("T4", 15.0)


def there(*gpus: Gpu, keys: set[str] | None = None, **more: Any) -> Resources:
    return Resources(gpus=gpus, keys=frozenset(keys or ()), **more)


def probe(backend: str, profile: str = "development", *, answers: bool = True) -> BackendProbe:
    return BackendProbe(backend, profile, "http://127.0.0.1:1/v1", True, answers)


def own(name: str, **hardware: Any) -> Profile:
    """A profile like development, with requirements of its own."""
    return replace(SHIPPED["development"], name=name, hardware=Hardware(**hardware))


def choice(resources: Resources, *more: Profile, strict: bool = False) -> str | None:
    best = recommend([*SHIPPED.values(), *more], resources, strict)
    return best.profile.name if best else None


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        (there(H100), "h100_local"),
        (there(H100, L4, T4, keys={"deepseek"}), "h100_local"),
        (there(L4, T4), "l4_t4_combined"),
        (there(L4, T4, keys={"deepseek"}), "l4_t4_combined"),
        (there(T4, keys={"deepseek"}), "t4_hybrid"),
        (there(gpu("T4", 16.0, GpuSource.SLURM), keys={"deepseek"}, slurm=Slurm()), "t4_hybrid"),
        (there(gpu("t4", 16.0, GpuSource.BACKEND), keys={"deepseek", "groq"}), "t4_hybrid"),
        (there(T4, keys={"anthropic"}), "cloud_only"),
        (there(L4, keys={"deepseek"}), "cloud_only"),
        (there(keys={"deepseek"}), "cloud_only"),
        (there(keys={"gemini"}), "cloud_only"),
        (there(T4), "development"),
        (there(L4), "development"),
        (there(gpu("H200", 140.0)), "development"),
        (there(gpu("H100-1G.10GB", 9.8)), "development"),
        (there(backends=(probe("vllm"),)), "development"),
        (there(), "development"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_shipped_tree(resources: Resources, name: str) -> None:
    """Every branch of the tree, and what stands just beside it."""
    assert choice(resources) == name


def test_the_order_of_choice() -> None:
    """Lowest rank first, ties by name, those without a rank last and by name."""
    mine = [own("b", rank=20), own("a", rank=20), own("zero", rank=0), own("y"), own("x")]
    names = [fit.profile.name for fit in fits([*mine, *SHIPPED.values()], there())]
    shipped = ["h100_local", "a", "b", "l4_t4_combined", "t4_hybrid", "cloud_only", "development"]
    assert names == ["zero", *shipped, "x", "y"]


def test_a_tie_goes_to_the_first_name() -> None:
    """Of two that fit at one rank the first by name is taken, in whatever order they come."""
    pair = [own("b", rank=5), own("a", rank=5)]
    for profiles in (pair, pair[::-1]):
        best = recommend(profiles, there())
        assert best
        assert best.profile.name == "a"


def test_a_site_puts_its_own_between_two() -> None:
    """A rank between two places a profile there, and nothing else changes."""
    mine = own("site", rank=25, gpu_types=("T4",))
    assert choice(there(T4, keys={"deepseek"}), mine) == "site"
    assert choice(there(L4, T4), mine) == "l4_t4_combined"
    assert choice(there(keys={"deepseek"}), mine) == "cloud_only"


def test_a_key_that_a_profile_does_not_use_is_none() -> None:
    """Any key is one of a provider that the profile has a model of."""
    assert choice(there(keys={"huggingface", "azure"})) == "development"
    assert choice(there(keys={"huggingface", "groq"})) == "cloud_only"


def test_one_without_a_rank_is_never_chosen() -> None:
    """It is told how it fits, and that is all."""
    unranked = own("free", gpu_types=("T4",))
    assert recommend([unranked], there(T4)) is None
    (fit,) = fits([unranked], there(T4))
    assert fit.fits


@pytest.mark.parametrize(
    ("memory", "kinds", "met"),
    [
        (16.0, ("T4",), True),
        (14.4, ("T4",), True),
        (14.3, ("T4",), False),
        (None, ("T4",), False),
        (15.0, (), True),
        (14.3, (), False),
        (None, (), False),
    ],
)
def test_memory_has_a_tenth_of_tolerance(
    memory: float | None, kinds: tuple[str, ...], met: bool
) -> None:
    """A 16 GB card that reports 15 will do, one of 14.3 will not; not known is not enough."""
    profile = own("m", gpu_types=kinds, min_gpu_memory_gb=16.0)
    (fit,) = fits([profile], there(gpu("T4", memory)))
    assert fit.requirements[-1].met is met
    assert fit.fits is met


def test_the_memory_is_that_of_the_required_type() -> None:
    """Another card's memory does not count, unless no type is named; one card is enough."""
    typed = own("typed", gpu_types=("T4",), min_gpu_memory_gb=40.0)
    free = own("free", min_gpu_memory_gb=40.0)
    found = fits([typed, free], there(T4, gpu("A100", 40.0)))
    assert [(fit.profile.name, fit.fits) for fit in found] == [("free", True), ("typed", False)]
    assert fits([typed], there(T4, gpu("T4", 40.0)))[0].fits


def test_every_named_type_must_be_there() -> None:
    """What is required is told one by one, in words that name what is missing."""
    mixed = own("mixed", gpu_types=("L4", "T4"), cloud_keys=("any", "groq"), slurm=True)
    (fit,) = fits([mixed], there(T4, keys={"deepseek"}))
    assert [(r.what, r.met) for r in fit.requirements] == [
        ("a GPU of type L4", False),
        ("a GPU of type T4", True),
        ("the key of any cloud provider", True),
        ("the key of Groq (GROQ_API_KEY)", False),
        ("SLURM", False),
    ]
    assert fit.missing == ("a GPU of type L4", "the key of Groq (GROQ_API_KEY)", "SLURM")
    full = there(T4, L4, keys={"groq"}, slurm=Slurm())
    assert fits([mixed], full)[0].fits


@pytest.mark.parametrize("written", ["T4", "t4", "Tesla T4", "NVIDIA T4"])
def test_a_type_may_be_written_as_it_is_sold(written: str) -> None:
    """The maker's name and the case of letters make no difference."""
    assert fits([own("p", gpu_types=(written,))], there(T4))[0].fits


@pytest.mark.parametrize(
    ("probes", "name"),
    [
        ((), None),
        ((probe("vllm", answers=False),), None),
        ((probe("vllm", "other"),), None),
        ((probe("echo"),), None),
        ((probe("deepseek"),), None),
        ((probe("vllm"),), "development"),
        ((probe("vllm", answers=False), probe("ollama")), "development"),
    ],
    ids=["nothing", "silent", "another's", "echo", "cloud", "vllm", "ollama"],
)
def test_strict_wants_a_local_model_server(
    probes: tuple[BackendProbe, ...], name: str | None
) -> None:
    """What requires nothing is chosen only where a local server of its own answers."""
    resources = there(backends=probes)
    assert choice(resources, strict=True) == name
    assert choice(resources) == "development"
    assert bool(local_servers(SHIPPED["development"], resources)) is (name is not None)


def test_strict_asks_no_more_of_what_requires_something() -> None:
    """Profiles with requirements are chosen as ever."""
    assert choice(there(H100), strict=True) == "h100_local"
    assert choice(there(keys={"openai"}), strict=True) == "cloud_only"


def test_strict_passes_on_to_the_next() -> None:
    """One that would do only without --strict does not end the search."""
    assert choice(there(T4), own("early", rank=1), own("late", rank=99, gpu_types=("T4",))) == (
        "early"
    )
    mine = (own("early", rank=1), own("late", rank=99, gpu_types=("T4",)))
    assert choice(there(T4), *mine, strict=True) == "late"


def test_nothing_fits() -> None:
    """No profile at all, or none that fits, is None and no error."""
    assert recommend([], there(H100)) is None
    assert recommend([own("p", rank=1, gpu_types=("B200",))], there(H100)) is None
