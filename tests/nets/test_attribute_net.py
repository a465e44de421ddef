"""The attribute net's configuration."""

from __future__ import annotations

from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig


def test_attribute_net_configs_describe_themselves() -> None:
    config = AttributeNetConfig(("a", "b"), 3, (8, 8), 4)
    assert config.to_dict()["widths"] == (8, 8) and AttributeNet(config).labels.out_features == 2
