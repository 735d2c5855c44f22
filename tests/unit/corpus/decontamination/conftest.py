"""Items and carrier texts of these tests' own wording."""

import pytest

from baltoro.corpus.decontamination.items import EvaluationItem

ENGLISH = (
    ("Which process carries sand grains along a desert floor in short hops?", "creep|saltation|solution"),
    (
        "The boundary where two tectonic plates slide past each other is named",
        "rift|trench|transform fault|ridge",
    ),
    (
        "What happens to groundwater levels when pumping exceeds natural recharge for decades?",
        "they fall|they rise",
    ),
    ("Name the soil horizon in which leached clay accumulates.", "horizon A|horizon B|horizon C"),
    ("Loess is deposited mainly by", "rivers|wind|ice sheets|waves"),
    ("Which of the following is not a mineral?", "halite|obsidian glass|calcite|native gold"),
    (
        "Permafrost thaw releases ______ that had been frozen for millennia.",
        "methane and carbon dioxide|ozone",
    ),
    ("The earth's magnetic field is believed to come from motion in its liquid outer core", ""),
    ("Isostatic rebound still lifts the coast of Finland several millimetres every year", ""),
    (
        "A mountain stream leaves its narrow valley, spreads over the plain, slows down and drops its "
        "gravel first and its silt last; the cone that grows this way over thousands of floods, and on which "
        "many towns of dry regions stand because wells find water in it, is called an alluvial fan.",
        "",
    ),
)

CHINESE = (
    ("下列哪一种作用使沙粒在荒漠地表跳跃前进？", "蠕移作用|跃移作用|悬移作用|溶解作用"),
    ("两个板块沿走向相互错动的边界称为什么？", "大陆裂谷|深海海沟|转换断层|洋中脊"),
    ("长期过量开采地下水最容易引起的环境问题是", "地面沉降|山体滑坡|沙尘暴|泥石流"),
    ("黄土高原的黄土主要来自哪个方向的风力搬运？", "西北方向|东南方向|正南方向"),
    ("石灰岩地区溶洞内石钟乳的主要成分是", "碳酸钙|二氧化硅|氧化铁"),
    ("冰川融水在冰下隧道中堆积而成的蜿蜒沙砾垄岗称为", "蛇形丘|鼓丘|终碛垄"),
    ("芬兰海岸至今仍因末次冰期冰盖消融而每年抬升数毫米", ""),
    ("多年冻土融化会把封存千年的有机碳重新释放到大气之中", ""),
    ("下列岩石中属于变质岩的是", "大理岩|玄武岩|石灰岩"),
    ("地震波中不能穿过液态外核的是哪一类波动？", "横波传播|纵波传播|面波传播"),
    ("河流入海处流速减慢、泥沙堆积而成的扇形平原叫做", "三角洲平原|冲积扇|河漫滩"),
    ("测定古老岩石绝对年龄时最常利用的同位素体系是", "铀铅体系|碳氮体系|氢氧体系"),
)

CARRIERS = (
    "# Grain size along a braided river\n\n## Methods\n\nWe sieved 214 samples of river gravel between 2011 "
    "and 2016. Each was dried, weighed and split into twelve fractions. "
    "[START_FORMULA]D_{50} = 2^{-\\phi}[END_FORMULA] was then computed for every bar, and compared with the "
    "slope of the bed.\n\nThe upper reach is steep. Its bars hold boulders, and its banks are cut into old "
    "moraines of the last glaciation. Downstream of the gorge the valley widens, the slope drops by "
    "half, and sand becomes common "
    "between the cobbles.\n\n## Results\n\nGrain size falls with "
    "distance, as expected, but jumps at every tributary. The largest jump follows the "
    "confluence with the Salza, whose floods of "
    "2013 moved blocks of more than one metre.",
    "# 祁连山冰川面积变化\n\n## 数据\n\n本文利用三期遥感影像提取了祁连山中段二百余条冰川的边界，"
    "并用野外测量结果检验了精度。影像经过正射校正，云量均小于百分之五。\n\n## 结果\n\n"
    "三十年来冰川总面积减少了约四分之一，小冰川退缩得最快。夏季气温上升是主要原因，"
    "降水略有增加，但不足以补偿消融的损失。冰湖数量同期增加，溃决风险值得关注。",
)


def items_of(rows, name):
    return [
        EvaluationItem(name, f"{name}.json#{n}", text, "question", tuple(filter(None, options.split("|"))))
        for n, (text, options) in enumerate(rows, 1)
    ]


@pytest.fixture(scope="session")
def english():
    return items_of(ENGLISH, "exam")


@pytest.fixture(scope="session")
def chinese():
    return items_of(CHINESE, "kaoshi")


@pytest.fixture(scope="session")
def carriers():
    return list(CARRIERS)
