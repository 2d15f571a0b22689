"""Which engine fits where: bytes by hand, transformers as the oracle, faked GPUs of several sizes."""

import pytest

from tts.errors import InputError
from tts.models.flops import meta_model
from tts.models.plan import (
    BESIDE,
    GIB,
    LEAST,
    OUTSIDE,
    TOKENS,
    USABLE,
    Engine,
    Gpu,
    _known,
    count_parameters,
    download_bytes,
    known_config,
    place,
    token_bytes,
    weight_bytes,
)

L1, L3, L8, L70 = (f"meta-llama/Llama-3.{name}-Instruct" for name in ("2-1B", "2-3B", "1-8B", "1-70B"))
PRM, QWEN_PRM = "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "Qwen/Qwen2.5-Math-PRM-7B"


def gpus(number, gib):
    return [Gpu(str(i), int(gib * GIB)) for i in range(number)]


def engine(model, parameter="policy_model", *, is_verifier=False):
    return Engine(model, parameter, known_config(model), is_verifier)


ONE, THREE, SEVENTY = engine(L1), engine(L3, "second_model"), engine(L70, "greedy_models")
VERIFIER = engine(PRM, "prm_model", is_verifier=True)


def test_parameters_by_hand():
    """A layer of Llama-3.2-1B: queries and outputs of 2,048 x 2,048, keys and values of 2,048 x 512, three matrices of
    2,048 x 8,192, two norms: 60,821,504. 16 of them, 128,256 embeddings, tied, and the last norm.
    """
    layer = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192 + 2 * 2048
    assert layer == 60_821_504
    assert count_parameters(known_config(L1)) == 16 * layer + 128_256 * 2048 + 2048 == PUBLISHED[L1]


# The numbers that the hub counts in these models' safetensors files, as public repositories quote them. Together with
# the shapes below they were compared with copies of the config.json files there (2026-11-27).
PUBLISHED = {
    L1: 1_235_814_400,
    L3: 3_212_749_824,
    L8: 8_030_261_248,
    L70: 70_553_706_496,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
}


@pytest.mark.parametrize("model", _known())
def test_parameters_are_those_that_were_published(model):
    count = count_parameters(known_config(model))
    if model in PUBLISHED:
        assert count == PUBLISHED[model]
    elif model == PRM:
        assert round(count / 1e9, 2) == 8.03  # "8.03B params", BF16, says its page on the hub
    elif model == QWEN_PRM:  # no count was found: it is Qwen2.5-7B with two layers in place of the logits
        head = 3584 * 3584 + 3584 + 2 * 3584 + 2
        assert count == PUBLISHED["Qwen/Qwen2.5-7B-Instruct"] - 152_064 * 3584 + head
        assert round(2 * count / 1e9) == 14  # GB: "~14GB fp16"
    else:
        assert model == "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B"
        assert round(2 * count / GIB, 1) == 2.9  # GiB: "~2.9GB" for its one file of weights


@pytest.mark.parametrize(
    ("model", "layers", "heads", "groups", "size", "positions"),
    [
        (L1, 16, 32, 8, 64, 131_072),
        (L3, 28, 24, 8, 128, 131_072),
        (L8, 32, 32, 8, 128, 131_072),
        (L70, 80, 64, 8, 128, 131_072),
        ("Qwen/Qwen2.5-1.5B-Instruct", 28, 12, 2, 128, 32_768),
        ("Qwen/Qwen2.5-3B-Instruct", 36, 16, 2, 128, 32_768),
        ("Qwen/Qwen2.5-7B-Instruct", 28, 28, 4, 128, 32_768),
        (QWEN_PRM, 28, 28, 4, 128, 4096),  # that of Qwen2.5-Math-7B-Instruct, as Skywork's is of the 1.5B
        ("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", 28, 12, 2, 128, 4096),
    ],
)
def test_shapes_that_counts_do_not_tell(model, layers, heads, groups, size, positions):
    names = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings")
    assert [known_config(model)[name] for name in names] == [layers, heads, groups, size, positions]


@pytest.mark.parametrize("model", _known())
def test_parameters_are_those_that_transformers_builds(model):
    config = dict(known_config(model))
    built = sum(one.numel() for one in meta_model(config).parameters())  # a PRM's head is not part of it
    width, words = config["hidden_size"], config["hidden_size"] * config["vocab_size"]
    head = {
        "Qwen2ForProcessRewardModel": (width + 1) * width + 2 * (width + 1) - words,  # in place of the logits
        "Qwen2ForPrmModel": width + 1,
    }
    assert count_parameters(config) == built + head.get(config["architectures"][0], 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True, "mlp_bias": True},
        {"model_type": "qwen3", "attention_bias": True},
        {"model_type": "mistral", "head_dim": 48},
        {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300},
    ],
)
def test_parameters_of_other_kinds(changes):
    small = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 300}
    config = known_config(L1) | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16} | small | changes
    assert count_parameters(config) == sum(one.numel() for one in meta_model(config).parameters())


def test_bytes_by_hand():
    """Keys and values of 1B: 16 layers, 8 heads of 64 numbers each, 2 bytes. In 8 bits only the layers' matrices."""
    assert [token_bytes(known_config(name)) for name in (L1, L8, L70)] == [32 << 10, 128 << 10, 320 << 10]
    assert token_bytes(known_config(L1), number=4) == 64 << 10
    assert token_bytes({"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 8}) == 0
    config = known_config(L8)
    assert weight_bytes(config) == 2 * 8_030_261_248
    matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert weight_bytes(config, "fp8") == 2 * 8_030_261_248 - matrices
    assert download_bytes(config) == 2 * 8_030_261_248
    assert download_bytes(config | {"dtype": "float32"}) == 4 * 8_030_261_248


def needed(of, where, sequences):
    """Bytes of a GPU for an engine with so many sequences in flight."""
    ways = len(where.groups[0])
    return of.weights[where.quantization] / ways + BESIDE + sequences * TOKENS * of.token / ways


def check(stages, found, machine):
    """Shares add up in every stage on every GPU, and each engine has room for what is promised."""
    for stage in stages:
        for gpu in machine:
            on_it = [one for one in stage if any(gpu.name in group for group in found[one].groups)]
            assert sum(found[one].share for one in on_it) <= USABLE + 1e-9
            for one in on_it:
                assert found[one].sequences >= LEAST
                assert (
                    found[one].share * gpu.memory >= needed(one, found[one], found[one].sequences) - 0.002 * gpu.memory
                )


def test_one_gpu_of_80_gb_holds_policy_and_verifier_side_by_side():
    stages = [[ONE, VERIFIER], [THREE, VERIFIER]]
    found = place(stages, gpus(1, 79))
    check(stages, found, gpus(1, 79))
    assert {one.quantization for one in found.values()} == {""}
    assert {one.groups for one in found.values()} == {(("0",),)}
    # By hand for 3B: 0.92 x 79 - (5.98 + 14.96 + 2 x 2) GiB are left for 112 + 128 KiB a token.
    tokens = (0.92 * 79 * GIB - 2 * 3_212_749_824 - 2 * 8_030_261_248 - 4 * GIB) / (240 << 10)
    assert found[THREE].sequences == int(tokens / 1024) == 203
    share = (2 * 3_212_749_824 + 2 * GIB + tokens * (112 << 10)) / (79 * GIB)
    assert found[THREE].share == pytest.approx(share, abs=0.001)


def test_24_gb_hold_the_verifier_in_8_bits():
    stages = [[ONE, VERIFIER], [THREE, VERIFIER]]
    found = place(stages, gpus(1, 24))
    check(stages, found, gpus(1, 24))
    assert [found[one].quantization for one in (ONE, THREE, VERIFIER)] == ["", "", "fp8"]
    with pytest.raises(InputError, match=r"GPU of 24.0 GiB, 0.4 GiB are missing: set quantization=\'\'$"):
        place(stages[:1], gpus(1, 24), quantization="none")
    # The shortfall by hand: two engines' weights, 2 GiB beside each, and 8 sequences of 160 KiB a token.
    short = (2 * 1_235_814_400 + 2 * 8_030_261_248) / GIB + 4 + 8 * 160 / 1024 - 0.92 * 24
    assert round(short, 1) == 0.4


def test_gpus_below_20_gib_keep_free_what_no_share_counts():
    shares = {gib: place([[ONE]], gpus(1, gib))[ONE].share for gib in (8, 16, 24, 79)}
    assert shares == {8: 0.781, 16: 0.890, 24: 0.92, 79: 0.92}  # 1 - 1.75 / 8, 1 - 1.75 / 16, and USABLE
    pair = [ONE, engine("Qwen/Qwen2.5-1.5B-Instruct", "prm_model", is_verifier=True)]
    found = place([pair], gpus(1, 16))
    check([pair], found, gpus(1, 16))
    assert 16 * GIB * (1 - sum(one.share for one in found.values())) >= OUTSIDE
    given = place([pair], gpus(1, 16), policy_share=0.4)
    assert 0.488 <= given[pair[1]].share <= 0.490, "what is given counts"


def test_eight_gpus_hold_a_pair_each_and_70b_over_four():
    machine, stages = gpus(8, 79), [[ONE, VERIFIER], [THREE, VERIFIER]]
    found = place(stages, machine)
    check(stages, found, machine)
    each = tuple((str(i),) for i in range(8))
    assert {one.groups for one in found.values()} == {each}
    alone = place([[SEVENTY]], machine)
    check([[SEVENTY]], alone, machine)
    assert alone[SEVENTY].groups == (("0", "1", "2", "3"), ("4", "5", "6", "7"))
    assert alone[SEVENTY].quantization == ""


def test_small_gpus_share_a_model_or_take_one_each():
    found = place([[ONE, VERIFIER]], gpus(2, 24))
    check([[ONE, VERIFIER]], found, gpus(2, 24))
    assert {(one.groups, one.quantization) for one in found.values()} == {((("0", "1"),), "")}
    qwen = [engine("Qwen/Qwen2.5-1.5B-Instruct"), engine(QWEN_PRM, "prm_model", is_verifier=True)]
    found = place([qwen], gpus(2, 24))
    assert [found[one].groups for one in qwen] == [(("0",),), (("1",),)]
    assert [found[one].share for one in qwen] == [0.92, 0.92]


def test_what_does_not_fit_is_one_line():
    with pytest.raises(InputError) as caught:
        place([[ONE, VERIFIER]], gpus(1, 16))
    assert str(caught.value) == (
        f"policy_model={L1} and prm_model={PRM} do not fit on the GPU of 16.0 GiB, 1.8 GiB are missing: "
        "name a smaller model as prm_model, or larger or more GPUs as gpus"
    )
    missing = (weight_bytes(ONE.config) + weight_bytes(VERIFIER.config, "fp8")) / GIB + 4 + 8 * 160 / 1024 - (16 - 1.75)
    assert f"{missing:.1f}" == "1.8"
    with pytest.raises(
        InputError, match=r"greedy_models=.*70B-Instruct does not fit .* 63.2 GiB .*: set quantization=fp8$"
    ):
        place([[SEVENTY]], gpus(1, 79))
    with pytest.raises(InputError, match="are missing: set tensor_parallel=0$"):
        place([[SEVENTY]], gpus(8, 79), tensor_parallel=1)
    with pytest.raises(InputError, match="are missing: set policy_share=0 and prm_share=0$"):
        place([[ONE, VERIFIER]], gpus(1, 79), prm_share=0.1)
    odd = Engine("odd", "policy_model", ONE.config | {"num_attention_heads": 3})
    with pytest.raises(InputError, match="policy_model=odd does not fit on 2 GPUs .* can't be split over them"):
        place([[odd]], gpus(2, 79), tensor_parallel=2)


def test_shares_that_are_given_are_taken():
    found = place([[ONE, VERIFIER]], gpus(1, 79), prm_share=0.5)
    assert found[VERIFIER].share == 0.5
    assert found[ONE].share == pytest.approx(0.42, abs=0.001)
    found = place([[ONE, VERIFIER]], gpus(1, 24), quantization="fp8")
    assert {one.quantization for one in found.values()} == {"fp8"}
    assert place([[ONE]], gpus(4, 79), tensor_parallel=2)[ONE].groups == (("0", "1"), ("2", "3"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy_share": 1.5}, "^policy_share=1.5: give a share"),
        ({"policy_share": 0.6, "prm_share": 0.6}, "^policy_share=0.6 and prm_share=0.6 are more than a whole GPU"),
        ({"tensor_parallel": 2}, "^tensor_parallel=2, but gpus are 1"),
        ({"quantization": "int4"}, "^quantization='int4' is unknown"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        place([[ONE]], gpus(1, 79), **settings)
