"""Languages are told from prose alone; what cannot be told is never held against a paper."""

import pytest

from baltoro.corpus.filters import FilterConfig, language_of, parts_of
from baltoro.corpus.filters.language import LANGUAGE_CODES, sample_of
from baltoro.corpus.words import words_of
from baltoro.papers.schema import Paper

TEXTS = {
    "de": "Gletscher im inneren Tal verlieren an ihrem Bett mehr Eis, als ihre Oberflächenbilanz "
    "vermuten lässt. Wir haben das Wasser zwei Sommer lang mit Farbstoff und Drucksensoren "
    "verfolgt und gefunden, dass ein Drittel davon länger als eine Woche unter dem Eis bleibt. Der "
    "Speicher wächst mit der Dauer der warmen Zeit und leert sich, sobald die erste kalte Nacht "
    "die Spalten schließt.",
    "fr": "Les glaciers de la vallée perdent à leur base plus de glace que leur bilan de surface ne le "
    "suggère. Nous avons suivi l'eau pendant deux étés à l'aide de traceurs et de capteurs de "
    "pression, et nous montrons qu'un tiers de celle-ci reste sous la glace pendant plus d'une "
    "semaine. Le stockage croît avec la durée de la période chaude et se vide dès la première nuit "
    "froide.",
    "es": "Los glaciares del valle interior pierden en su base más hielo de lo que indica el balance de "
    "su superficie. Seguimos el agua durante dos veranos con trazadores y sensores de presión, y "
    "encontramos que un tercio de ella permanece bajo el hielo más de una semana. El "
    "almacenamiento crece con la duración del período cálido y se vacía con la primera noche fría.",
    "pt": "As geleiras do vale interior perdem na sua base mais gelo do que o balanço da superfície "
    "sugere. Seguimos a água durante dois verões com traçadores e sensores de pressão, e "
    "verificamos que um terço dela permanece sob o gelo por mais de uma semana. O armazenamento "
    "cresce com a duração do período quente e não se mantém depois da primeira noite fria.",
    "it": "I ghiacciai della valle interna perdono alla base più ghiaccio di quanto indichi il bilancio "
    "della loro superficie. Abbiamo seguito l'acqua per due estati con traccianti e sensori di "
    "pressione, e abbiamo trovato che un terzo di essa resta sotto il ghiaccio per più di una "
    "settimana. L'accumulo cresce con la durata del periodo caldo e si svuota con la prima notte "
    "fredda.",
    "nl": "Gletsjers in het binnenste dal verliezen aan hun bed meer ijs dan de balans van hun oppervlak "
    "doet vermoeden. Wij hebben het water twee zomers lang met kleurstof en druksensoren gevolgd "
    "en vonden dat een derde ervan langer dan een week onder het ijs blijft. De voorraad groeit "
    "met de duur van de warme tijd en loopt leeg zodra de eerste koude nacht de spleten sluit.",
    "pl": "Lodowce w wewnętrznej dolinie tracą przy podłożu więcej lodu, niż wynika z bilansu ich "
    "powierzchni. Przez dwa lata śledziliśmy wodę za pomocą barwnika i czujników ciśnienia. "
    "Okazało się, że jedna trzecia wody pozostaje pod lodem dłużej niż tydzień. Zapas rośnie wraz "
    "z długością ciepłego okresu i opróżnia się, gdy pierwsza zimna noc zamknie szczeliny.",
    "cs": "Ledovce ve vnitřním údolí ztrácejí u svého dna více ledu, než naznačuje bilance jejich "
    "povrchu. Po dvě léta jsme sledovali vodu barvivem a čidly tlaku a zjistili jsme, že třetina "
    "vody zůstává pod ledem déle než týden. Zásoba roste s délkou teplého období a vyprázdní se, "
    "jakmile první studená noc uzavře trhliny. Čtvrtina vrtů zamrzla a smrk na okraji prst země "
    "nepustil.",
    "fi": "Sisälaakson jäätiköt menettävät pohjastaan enemmän jäätä kuin pinnan tase antaa olettaa. "
    "Seurasimme vettä kahden kesän ajan väriaineella ja paineantureilla ja havaitsimme, että "
    "kolmannes siitä jää jään alle yli viikoksi. Varasto kasvaa lämpimän jakson pituuden myötä ja "
    "tyhjenee heti, kun ensimmäinen kylmä yö sulkee halkeamat.",
    "vi": "Các sông băng ở thung lũng bên trong mất nhiều băng ở đáy hơn so với cân bằng bề mặt của "
    "chúng. Chúng tôi đã theo dõi dòng nước trong hai mùa hè bằng chất chỉ thị và cảm biến áp "
    "suất, và thấy rằng một phần ba lượng nước ở lại dưới lớp băng hơn một tuần. Lượng nước trữ "
    "tăng theo độ dài của thời kỳ ấm và cạn đi sau đêm lạnh đầu tiên.",
    "ru": "Ледники внутренней долины теряют у своего ложа больше льда, чем предполагает баланс их "
    "поверхности. Мы два лета следили за водой с помощью красителя и датчиков давления и "
    "установили, что треть её остаётся подо льдом дольше недели. Запас растёт с продолжительностью "
    "тёплого времени и опорожняется, как только первая холодная ночь закрывает трещины.",
    "uk": "Льодовики внутрішньої долини втрачають біля свого ложа більше льоду, ніж свідчить баланс "
    "їхньої поверхні. Ми два літа стежили за водою за допомогою барвника та датчиків тиску і "
    "встановили, що третина її залишається під льодом довше тижня. Запас зростає з тривалістю "
    "теплого періоду і спорожнюється після першої холодної ночі.",
    "el": "Οι παγετώνες της εσωτερικής κοιλάδας χάνουν στη βάση τους περισσότερο πάγο από όσο δείχνει το "
    "ισοζύγιο της επιφάνειάς τους. Παρακολουθήσαμε το νερό για δύο καλοκαίρια με ιχνηθέτες και "
    "αισθητήρες πίεσης και βρήκαμε ότι το ένα τρίτο του μένει κάτω από τον πάγο για περισσότερο "
    "από μία εβδομάδα.",
    "ar": "تفقد الأنهار الجليدية في الوادي الداخلي عند قاعدتها جليدا أكثر مما يوحي به توازن سطحها. "
    "تتبعنا المياه خلال صيفين باستخدام الصبغة ومجسات الضغط، ووجدنا أن ثلثها يبقى تحت الجليد لأكثر "
    "من أسبوع. وينمو المخزون مع طول الفترة الدافئة ثم يفرغ عندما تغلق أول ليلة باردة الشقوق.",
    "th": "ธารน้ำแข็งในหุบเขาชั้นในสูญเสียน้ำแข็งที่ฐานมากกว่าที่ดุลพื้นผิวบ่งชี้ "
    "เราติดตามน้ำเป็นเวลาสองฤดูร้อนด้วยสีย้อมและเครื่องวัดความดัน "
    "และพบว่าน้ำหนึ่งในสามยังคงอยู่ใต้น้ำแข็งนานกว่าหนึ่งสัปดาห์ "
    "ปริมาณที่กักเก็บเพิ่มขึ้นตามความยาวของช่วงอากาศอบอุ่น และลดลงเมื่อคืนแรกที่หนาวเย็นปิดรอยแยก "
    "ผลการศึกษานี้ แสดงให้เห็นว่า แบบจำลอง ที่ใช้อยู่ ทำนาย น้ำท่วม เร็วเกินไป และ ความเร็ว "
    "การเลื่อน ต่ำเกินไป ใน ทุก กรณี ที่ เรา ศึกษา",
    "zh": "山谷内部的冰川在其底部失去的冰比表面物质平衡所显示的更多。我们用染料和压力传感器追踪了两个夏季"
    "的水流，发现三分之一的水在冰下停留超过一周。储水量随着暖期的延长而增加，并在第一个寒冷的夜晚关"
    "闭裂隙之后排空。这一结果说明，仅以通道描述排水过程的模型会过早地预测洪水，也会低估冰川的滑动速"
    "度。",
    "ja": "谷の奥にある氷河は、表面の収支が示すよりも多くの氷を底面で失っている。私たちは二度の夏にわたり"
    "、染料と圧力計を用いて水の行方を追い、その三分の一が一週間以上も氷の下にとどまることを見いだし"
    "た。貯留量は暖かい期間が長いほど増え、最初の寒い夜に割れ目が閉じると空になる。水路だけで排水を"
    "表すモデルは、洪水の時期を早く見積もりすぎる。",
    "ko": "안쪽 골짜기의 빙하는 표면 수지가 나타내는 것보다 더 많은 얼음을 바닥에서 잃는다. 우리는 두 해 "
    "여름 동안 염료와 압력 감지기로 물을 추적하였고, 그 가운데 삼분의 일이 일주일 넘게 얼음 아래에 "
    "머무른다는 것을 알아냈다. 저장량은 따뜻한 기간이 길수록 늘어나며, 첫 추운 밤에 틈이 닫히면 "
    "비워진다. 이 결과는 기존 모형이 홍수를 너무 일찍 예측한다는 것을 보여 준다.",
}


def language(text):
    words = words_of(text)
    return language_of(text, words, parts_of(text, words))


@pytest.mark.parametrize("code", TEXTS)
def test_a_paragraph_is_recognised_and_passes_every_default_rule(judge, code):
    judged = judge(TEXTS[code], FilterConfig(min_characters=100))
    assert (judged.facts.language, judged.facts.language_confidence > 0.5) == (code, True)
    assert judged.verdict is None


@pytest.mark.parametrize("code", sorted(set(TEXTS) - {"de"}))
def test_another_language_is_rejected_with_what_was_found_and_what_is_allowed(judge, code):
    judged = judge(TEXTS[code] * 2, FilterConfig(language={"allow": ["de"]}))
    assert judged.reason == "language"
    assert judged.verdict.detail.startswith(f"language {code}, confidence ")
    assert judged.verdict.detail.endswith(", allowed: de")


def test_the_declared_language_is_kept_but_not_believed(judge):
    judged = judge(TEXTS["fr"], FilterConfig(language={"allow": ["en"]}), Paper(language="en"))
    assert (judged.facts.declared_language, judged.facts.language) == ("en", "fr")
    assert judged.reason == "language"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Melt rises.",
        "1 2 3 " * 200,
        "x y z w a b " * 100,
        r"\(\mathcal{L}(\theta)=\sum_{i}\log p_{\theta}(x_{i}\mid y_{i})\) " * 60,
        r"[START_FORMULA]\mathbf{w}_{i}^{(t-1)}=\psi^{(t)}(\mathbf{w}_{i}^{(t)})[END_FORMULA] " * 60,
        "|Estación|año|profundidad|temperatura|\n|-|-|-|-|\n" + "|Lago Seco|1998|34|12|\n" * 60,
        "[START_REF]Étude des glaciers de la vallée et de leur bilan[END_REF] " * 60,
    ],
)
def test_without_enough_prose_the_language_is_undetermined_and_no_reason_to_reject(judge, text):
    judged = judge(text, FilterConfig(language={"allow": ["sw"]}))
    assert (judged.facts.language, judged.facts.language_confidence) == ("und", 0.0)
    assert judged.reason != "language"


def test_formulas_tables_and_cited_titles_do_not_change_the_language(prose):
    noise = (
        r" [START_FORMULA]\mathbf{z}\in\mathcal{Z},\;\psi_{\sigma_{t}}^{(t)}[END_FORMULA] "
        "[START_REF]Über die Wasserwege im Gletscher und ihre Veränderung im Sommer[END_REF] "
    )
    heavy = "\n\n".join(noise * 5 + paragraph + noise * 5 for paragraph in prose.split("\n\n"))
    assert language(heavy).code == language(prose).code == "en"


def test_the_sample_is_bounded_and_taken_from_the_whole_document():
    text = "alpha beta gamma delta " * 5_000 + "omega sigma kappa lambda " * 5_000
    words = words_of(text)
    sample = sample_of(text, words, parts_of(text, words))
    assert len(sample) < 2_000
    assert sample.startswith("alpha")
    assert sample.endswith("lambda")


def test_an_english_paper_about_chinese_words_is_english(prose):
    assert language(prose + "\n\nThe terms are 冰川, 融水 and 底部滑动, in that order.").code == "en"


def test_the_list_of_codes_is_the_models_own():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    from baltoro.corpus.filters.language import _SAME_LANGUAGE

    labels = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).labels
    assert {_SAME_LANGUAGE.get(label, label) for label in labels} | {"sr"} == LANGUAGE_CODES


def test_the_faster_walk_gives_the_librarys_own_answer():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    from baltoro.corpus.filters.language import _identifier

    own, library = _identifier(), LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    for text in [*TEXTS.values(), " ".join(TEXTS.values()), "", "a", "QQQ", "12 ##", "\U0001f600" * 7]:
        assert own.classify(text) == library.classify(text)
