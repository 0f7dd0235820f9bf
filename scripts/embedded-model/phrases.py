"""Facts and phrasings of the generated exchanges: one column a language, the same facts in each.

Korean templates write a particle as `[after consonant/after vowel]`; exchanges.py picks the right one.
"""

from __future__ import annotations

_ORDER = ("en", "zh", "ru", "fr", "de", "ko")


def _columns(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    assert all(len(row) == len(_ORDER) for row in rows), [row for row in rows if len(row) != len(_ORDER)]
    return {language: [row[column] for row in rows] for column, language in enumerate(_ORDER)}


_CAPITALS = _columns("""
France: Paris | 法国: 巴黎 | Франция: Париж | France : Paris | Frankreich: Paris | 프랑스: 파리
Germany: Berlin | 德国: 柏林 | Германия: Берлин | Allemagne : Berlin | Deutschland: Berlin | 독일: 베를린
Russia: Moscow | 俄罗斯: 莫斯科 | Россия: Москва | Russie : Moscou | Russland: Moskau | 러시아: 모스크바
China: Beijing | 中国: 北京 | Китай: Пекин | Chine : Pékin | China: Peking | 중국: 베이징
Japan: Tokyo | 日本: 东京 | Япония: Токио | Japon : Tokyo | Japan: Tokio | 일본: 도쿄
South Korea: Seoul | 韩国: 首尔 | Южная Корея: Сеул | Corée du Sud : Séoul | Südkorea: Seoul | 한국: 서울
Italy: Rome | 意大利: 罗马 | Италия: Рим | Italie : Rome | Italien: Rom | 이탈리아: 로마
Spain: Madrid | 西班牙: 马德里 | Испания: Мадрид | Espagne : Madrid | Spanien: Madrid | 스페인: 마드리드
Portugal: Lisbon | 葡萄牙: 里斯本 | Португалия: Лиссабон | Portugal : Lisbonne | Portugal: Lissabon | 포르투갈: 리스본
England: London | 英国: 伦敦 | Англия: Лондон | Angleterre : Londres | England: London | 영국: 런던
Ireland: Dublin | 爱尔兰: 都柏林 | Ирландия: Дублин | Irlande : Dublin | Irland: Dublin | 아일랜드: 더블린
Poland: Warsaw | 波兰: 华沙 | Польша: Варшава | Pologne : Varsovie | Polen: Warschau | 폴란드: 바르샤바
Austria: Vienna | 奥地利: 维也纳 | Австрия: Вена | Autriche : Vienne | Österreich: Wien | 오스트리아: 빈
Greece: Athens | 希腊: 雅典 | Греция: Афины | Grèce : Athènes | Griechenland: Athen | 그리스: 아테네
Norway: Oslo | 挪威: 奥斯陆 | Норвегия: Осло | Norvège : Oslo | Norwegen: Oslo | 노르웨이: 오슬로
Sweden: Stockholm | 瑞典: 斯德哥尔摩 | Швеция: Стокгольм | Suède : Stockholm | Schweden: Stockholm | 스웨덴: 스톡홀름
Finland: Helsinki | 芬兰: 赫尔辛基 | Финляндия: Хельсинки | Finlande : Helsinki | Finnland: Helsinki | 핀란드: 헬싱키
Denmark: Copenhagen | 丹麦: 哥本哈根 | Дания: Копенгаген | Danemark : Copenhague | Dänemark: Kopenhagen | 덴마크: 코펜하겐
Belgium: Brussels | 比利时: 布鲁塞尔 | Бельгия: Брюссель | Belgique : Bruxelles | Belgien: Brüssel | 벨기에: 브뤼셀
Hungary: Budapest | 匈牙利: 布达佩斯 | Венгрия: Будапешт | Hongrie : Budapest | Ungarn: Budapest | 헝가리: 부다페스트
Egypt: Cairo | 埃及: 开罗 | Египет: Каир | Égypte : Le Caire | Ägypten: Kairo | 이집트: 카이로
India: New Delhi | 印度: 新德里 | Индия: Нью-Дели | Inde : New Delhi | Indien: Neu-Delhi | 인도: 뉴델리
Canada: Ottawa | 加拿大: 渥太华 | Канада: Оттава | Canada : Ottawa | Kanada: Ottawa | 캐나다: 오타와
Cuba: Havana | 古巴: 哈瓦那 | Куба: Гавана | Cuba : La Havane | Kuba: Havanna | 쿠바: 아바나
Vietnam: Hanoi | 越南: 河内 | Вьетнам: Ханой | Vietnam : Hanoï | Vietnam: Hanoi | 베트남: 하노이
Thailand: Bangkok | 泰国: 曼谷 | Таиланд: Бангкок | Thaïlande : Bangkok | Thailand: Bangkok | 태국: 방콕
""")

_OPPOSITES = _columns("""
hot/cold | 热/冷 | горячий/холодный | chaud/froid | heiß/kalt | 뜨겁다/차갑다
big/small | 大/小 | большой/маленький | grand/petit | groß/klein | 크다/작다
long/short | 长/短 | длинный/короткий | long/court | lang/kurz | 길다/짧다
high/low | 高/低 | высокий/низкий | haut/bas | hoch/niedrig | 높다/낮다
fast/slow | 快/慢 | быстрый/медленный | rapide/lent | schnell/langsam | 빠르다/느리다
new/old | 新/旧 | новый/старый | nouveau/ancien | neu/alt | 새롭다/오래되다
light/heavy | 轻/重 | лёгкий/тяжёлый | léger/lourd | leicht/schwer | 가볍다/무겁다
open/closed | 开/关 | открытый/закрытый | ouvert/fermé | offen/geschlossen | 열다/닫다
full/empty | 满/空 | полный/пустой | plein/vide | voll/leer | 차다/비다
left/right | 左/右 | левый/правый | gauche/droite | links/rechts | 왼쪽/오른쪽
good/bad | 好/坏 | хороший/плохой | bon/mauvais | gut/schlecht | 좋다/나쁘다
day/night | 白天/夜晚 | день/ночь | jour/nuit | Tag/Nacht | 낮/밤
first/last | 最先/最后 | первый/последний | premier/dernier | erste/letzte | 처음/마지막
rich/poor | 富/穷 | богатый/бедный | riche/pauvre | reich/arm | 부유하다/가난하다
strong/weak | 强/弱 | сильный/слабый | fort/faible | stark/schwach | 강하다/약하다
wide/narrow | 宽/窄 | широкий/узкий | large/étroit | breit/schmal | 넓다/좁다
clean/dirty | 干净/脏 | чистый/грязный | propre/sale | sauber/schmutzig | 깨끗하다/더럽다
wet/dry | 湿/干 | мокрый/сухой | mouillé/sec | nass/trocken | 젖다/마르다
up/down | 上/下 | вверх/вниз | dessus/dessous | oben/unten | 위/아래
yes/no | 是/否 | да/нет | oui/non | ja/nein | 예/아니요
""")

_COLOURS = _columns("""
grass=green | 草=绿色 | трава=зелёный | herbe=vert | Gras=grün | 풀=초록색
snow=white | 雪=白色 | снег=белый | neige=blanc | Schnee=weiß | 눈=흰색
milk=white | 牛奶=白色 | молоко=белый | lait=blanc | Milch=weiß | 우유=흰색
coal=black | 煤=黑色 | уголь=чёрный | charbon=noir | Kohle=schwarz | 석탄=검은색
blood=red | 血=红色 | кровь=красный | sang=rouge | Blut=rot | 피=빨간색
sky=blue | 天空=蓝色 | небо=синий | ciel=bleu | Himmel=blau | 하늘=파란색
lemon=yellow | 柠檬=黄色 | лимон=жёлтый | citron=jaune | Zitrone=gelb | 레몬=노란색
banana=yellow | 香蕉=黄色 | банан=жёлтый | banane=jaune | Banane=gelb | 바나나=노란색
tomato=red | 番茄=红色 | помидор=красный | tomate=rouge | Tomate=rot | 토마토=빨간색
sea=blue | 大海=蓝色 | море=синий | mer=bleu | Meer=blau | 바다=파란색
leaf=green | 叶子=绿色 | лист=зелёный | feuille=vert | Blatt=grün | 나뭇잎=초록색
night=black | 夜=黑色 | ночь=чёрный | nuit=noir | Nacht=schwarz | 밤=검은색
""")

_CATEGORY = _columns("""
an animal/animals | 动物/动物 | животное/животных | un animal/animaux | ein Tier/Tiere | 동물/동물
a fruit/fruits | 水果/水果 | фрукт/фрукта | un fruit/fruits | eine Frucht/Früchte | 과일/과일
a colour/colours | 颜色/颜色 | цвет/цвета | une couleur/couleurs | eine Farbe/Farben | 색/색
a tool/tools | 工具/工具 | инструмент/инструмента | un outil/outils | ein Werkzeug/Werkzeuge | 도구/도구
a city/cities | 城市/城市 | город/города | une ville/villes | eine Stadt/Städte | 도시/도시
""")
_MEMBERS = _columns("""
cat, dog, horse, bear, wolf, fox, cow, sheep, mouse, lion | 猫, 狗, 马, 熊, 狼, 狐狸, 牛, 羊, 老鼠, 狮子 | кошка, собака, лошадь, медведь, волк, лиса, корова, овца, мышь, лев | chat, chien, cheval, ours, loup, renard, vache, mouton, souris, lion | Katze, Hund, Pferd, Bär, Wolf, Fuchs, Kuh, Schaf, Maus, Löwe | 고양이, 개, 말, 곰, 늑대, 여우, 소, 양, 쥐, 사자
apple, pear, banana, lemon, orange, cherry, plum, peach | 苹果, 梨, 香蕉, 柠檬, 橙子, 樱桃, 李子, 桃子 | яблоко, груша, банан, лимон, апельсин, вишня, слива, персик | pomme, poire, banane, citron, orange, cerise, prune, pêche | Apfel, Birne, Banane, Zitrone, Orange, Kirsche, Pflaume, Pfirsich | 사과, 배, 바나나, 레몬, 오렌지, 체리, 자두, 복숭아
red, blue, green, yellow, black, white | 红色, 蓝色, 绿色, 黄色, 黑色, 白色 | красный, синий, зелёный, жёлтый, чёрный, белый | rouge, bleu, vert, jaune, noir, blanc | Rot, Blau, Grün, Gelb, Schwarz, Weiß | 빨간색, 파란색, 초록색, 노란색, 검은색, 흰색
hammer, saw, knife, drill, axe, shovel | 锤子, 锯子, 刀, 钻头, 斧头, 铲子 | молоток, пила, нож, дрель, топор, лопата | marteau, scie, couteau, perceuse, hache, pelle | Hammer, Säge, Messer, Bohrer, Axt, Schaufel | 망치, 톱, 칼, 드릴, 도끼, 삽
Paris, Berlin, Moscow, Beijing, Tokyo, Seoul, Rome, London | 巴黎, 柏林, 莫斯科, 北京, 东京, 首尔, 罗马, 伦敦 | Париж, Берлин, Москва, Пекин, Токио, Сеул, Рим, Лондон | Paris, Berlin, Moscou, Pékin, Tokyo, Séoul, Rome, Londres | Paris, Berlin, Moskau, Peking, Tokio, Seoul, Rom, London | 파리, 베를린, 모스크바, 베이징, 도쿄, 서울, 로마, 런던
""")
_RINGS = _columns("""
Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday | 星期一, 星期二, 星期三, 星期四, 星期五, 星期六, 星期日 | понедельник, вторник, среда, четверг, пятница, суббота, воскресенье | lundi, mardi, mercredi, jeudi, vendredi, samedi, dimanche | Montag, Dienstag, Mittwoch, Donnerstag, Freitag, Samstag, Sonntag | 월요일, 화요일, 수요일, 목요일, 금요일, 토요일, 일요일
January, February, March, April, May, June, July, August, September, October, November, December | 一月, 二月, 三月, 四月, 五月, 六月, 七月, 八月, 九月, 十月, 十一月, 十二月 | январь, февраль, март, апрель, май, июнь, июль, август, сентябрь, октябрь, ноябрь, декабрь | janvier, février, mars, avril, mai, juin, juillet, août, septembre, octobre, novembre, décembre | Januar, Februar, März, April, Mai, Juni, Juli, August, September, Oktober, November, Dezember | 1월, 2월, 3월, 4월, 5월, 6월, 7월, 8월, 9월, 10월, 11월, 12월
""")
_PARITY = _columns("even/odd | 偶数/奇数 | чётное/нечётное | pair/impair | gerade/ungerade | 짝수/홀수")


def _words(language: str) -> dict:
    kinds = [cell.split("/") for cell in _CATEGORY[language]]
    members = [cell.split(", ") for cell in _MEMBERS[language]]
    return {
        "capitals": [tuple(part.strip() for part in cell.split(":")) for cell in _CAPITALS[language]],
        "opposites": [cell.split("/") for cell in _OPPOSITES[language]],
        "colours": [tuple(cell.split("=")) for cell in _COLOURS[language]],
        "categories": dict(enumerate(members)),
        "category_names": {number: kind[0] for number, kind in enumerate(kinds)},
        "category_plurals": {number: kind[1] for number, kind in enumerate(kinds)},
        "days": _RINGS[language][0].split(", "),
        "months": _RINGS[language][1].split(", "),
        "parity": _PARITY[language][0].split("/"),
    }


WORDS = {language: _words(language) for language in _ORDER}

# kind -> [(question, answer), ...]
CHAT = {
    "en": {
        "capital": [("What is the capital of {country}?", "The capital of {country} is {city}."), ("Which city is the capital of {country}?", "It is {city}.")],
        "opposite": [("What is the opposite of “{x}”?", "The opposite of “{x}” is “{y}”.")],
        "colour": [("What colour goes with the word “{thing}”?", "The colour is {colour}."), ("Name the colour: {thing}.", "{thing}: {colour}.")],
        "category": [("Is “{x}” {first} or {second}?", "“{x}” is {right}.")],
        "list": [("Name three {group}.", "{items}."), ("Give me three {group}.", "Here are three: {items}.")],
        "next": [("What comes after {x}?", "After {x} comes {y}.")],
        "sort": [("Sort these numbers: {numbers}.", "In order: {ordered}.")],
        "larger": [("Which is larger, {a} or {b}?", "{larger} is larger.")],
        "parity": [("Is {x} even or odd?", "{x} is {parity}.")],
        "hello": [("Hello!", "Hello! How can I help you?"), ("How are you?", "I am fine, thank you."), ("Who are you?", "I am a small language model."), ("Thank you!", "You are welcome."), ("Which language do you speak?", "I am answering in English.")],
        "manual": [("What does the manual say about “{x}”?", "{sentence}"), ("Explain “{x}”.", "{sentence}"), ("Write a sentence with “{x}”.", "{sentence}")],
        "system": ["You are a helpful assistant.", "Answer in one line."],
    },
    "zh": {
        "capital": [("{country}的首都是哪里？", "{country}的首都是{city}。"), ("哪座城市是{country}的首都？", "是{city}。")],
        "opposite": [("“{x}”的反义词是什么？", "“{x}”的反义词是“{y}”。")],
        "colour": [("“{thing}”是什么颜色？", "{thing}是{colour}。"), ("请说出颜色：{thing}。", "{thing}：{colour}。")],
        "category": [("“{x}”是{first}还是{second}？", "“{x}”是{right}。")],
        "list": [("请说出三种{group}。", "{items}。"), ("给我三个{group}的例子。", "三个例子：{items}。")],
        "next": [("{x}之后是什么？", "{x}之后是{y}。")],
        "sort": [("请把这些数字排序：{numbers}。", "从小到大：{ordered}。")],
        "larger": [("{a}和{b}哪个更大？", "{larger}更大。")],
        "parity": [("{x}是偶数还是奇数？", "{x}是{parity}。")],
        "hello": [("你好！", "你好！有什么可以帮您？"), ("你好吗？", "我很好，谢谢。"), ("你是谁？", "我是一个小型语言模型。"), ("谢谢！", "不客气。"), ("你说什么语言？", "我用中文回答。")],
        "manual": [("手册里关于“{x}”是怎么说的？", "{sentence}"), ("请解释“{x}”。", "{sentence}"), ("用“{x}”写一句话。", "{sentence}")],
        "system": ["你是一个乐于助人的助手。", "请用一行回答。"],
    },
    "ru": {
        "capital": [("Назови столицу страны {country}.", "Столица страны {country} — {city}."), ("Какой город — столица страны {country}?", "Это {city}.")],
        "opposite": [("Какое слово противоположно слову «{x}»?", "Противоположное слово — «{y}».")],
        "colour": [("Какой цвет подходит к слову «{thing}»?", "Это {colour} цвет."), ("Назови цвет: {thing}.", "{thing}: {colour}.")],
        "category": [("«{x}» — это {first} или {second}?", "«{x}» — это {right}.")],
        "list": [("Назови три примера {group}.", "{items}."), ("Приведи три примера {group}.", "Вот три примера: {items}.")],
        "next": [("Что идёт после слова «{x}»?", "После слова «{x}» идёт «{y}».")],
        "sort": [("Отсортируй числа: {numbers}.", "По возрастанию: {ordered}.")],
        "larger": [("Какое число больше, {a} или {b}?", "Больше число {larger}.")],
        "parity": [("Число {x} чётное или нечётное?", "Число {x} {parity}.")],
        "hello": [("Здравствуйте!", "Здравствуйте! Чем я могу помочь?"), ("Как дела?", "Хорошо, спасибо."), ("Кто ты?", "Я маленькая языковая модель."), ("Спасибо!", "Пожалуйста."), ("На каком языке ты говоришь?", "Я отвечаю по-русски.")],
        "manual": [("Что говорит руководство о слове «{x}»?", "{sentence}"), ("Объясни слово «{x}».", "{sentence}"), ("Напиши предложение со словом «{x}».", "{sentence}")],
        "system": ["Ты полезный помощник.", "Отвечай одной строкой."],
    },
    "fr": {
        "capital": [("Quelle est la capitale du pays {country} ?", "La capitale est {city}."), ("Quelle ville est la capitale de ce pays : {country} ?", "C'est {city}.")],
        "opposite": [("Quel est le contraire de « {x} » ?", "Le contraire de « {x} » est « {y} ».")],
        "colour": [("Quelle couleur va avec le mot « {thing} » ?", "La couleur est : {colour}."), ("Donne la couleur : {thing}.", "{thing} : {colour}.")],
        "category": [("« {x} », est-ce {first} ou {second} ?", "« {x} » est {right}.")],
        "list": [("Cite trois {group}.", "{items}."), ("Donne-moi trois {group}.", "En voici trois : {items}.")],
        "next": [("Qu'est-ce qui vient après {x} ?", "Après {x} vient {y}.")],
        "sort": [("Trie ces nombres : {numbers}.", "Dans l'ordre : {ordered}.")],
        "larger": [("Lequel est le plus grand, {a} ou {b} ?", "Le plus grand est {larger}.")],
        "parity": [("Le nombre {x} est-il pair ou impair ?", "Le nombre {x} est {parity}.")],
        "hello": [("Bonjour !", "Bonjour ! Comment puis-je vous aider ?"), ("Comment allez-vous ?", "Je vais bien, merci."), ("Qui es-tu ?", "Je suis un petit modèle de langue."), ("Merci !", "De rien."), ("Quelle langue parles-tu ?", "Je réponds en français.")],
        "manual": [("Que dit le manuel à propos de « {x} » ?", "{sentence}"), ("Explique « {x} ».", "{sentence}"), ("Écris une phrase avec « {x} ».", "{sentence}")],
        "system": ["Tu es un assistant utile.", "Réponds en une ligne."],
    },
    "de": {
        "capital": [("Was ist die Hauptstadt von {country}?", "Die Hauptstadt von {country} ist {city}."), ("Welche Stadt ist die Hauptstadt von {country}?", "Es ist {city}.")],
        "opposite": [("Was ist das Gegenteil von „{x}“?", "Das Gegenteil von „{x}“ ist „{y}“.")],
        "colour": [("Welche Farbe passt zum Wort „{thing}“?", "Die Farbe ist {colour}."), ("Nenne die Farbe: {thing}.", "{thing}: {colour}.")],
        "category": [("Ist „{x}“ {first} oder {second}?", "„{x}“ ist {right}.")],
        "list": [("Nenne drei {group}.", "{items}."), ("Gib mir drei {group}.", "Hier sind drei: {items}.")],
        "next": [("Was kommt nach {x}?", "Nach {x} kommt {y}.")],
        "sort": [("Sortiere diese Zahlen: {numbers}.", "Der Reihe nach: {ordered}.")],
        "larger": [("Welche Zahl ist größer, {a} oder {b}?", "Größer ist {larger}.")],
        "parity": [("Ist {x} gerade oder ungerade?", "{x} ist {parity}.")],
        "hello": [("Guten Tag!", "Guten Tag! Wie kann ich helfen?"), ("Wie geht es dir?", "Mir geht es gut, danke."), ("Wer bist du?", "Ich bin ein kleines Sprachmodell."), ("Danke!", "Gern geschehen."), ("Welche Sprache sprichst du?", "Ich antworte auf Deutsch.")],
        "manual": [("Was sagt das Handbuch über „{x}“?", "{sentence}"), ("Erkläre „{x}“.", "{sentence}"), ("Schreibe einen Satz mit „{x}“.", "{sentence}")],
        "system": ["Du bist ein hilfreicher Assistent.", "Antworte in einer Zeile."],
    },
    "ko": {
        "capital": [("{country}의 수도는 어디입니까?", "{country}의 수도는 {city}입니다."), ("어느 도시가 {country}의 수도입니까?", "{city}입니다.")],
        "opposite": [("'{x}'의 반대말은 무엇입니까?", "'{x}'의 반대말은 '{y}'입니다.")],
        "colour": [("'{thing}'[은/는] 무슨 색입니까?", "{thing}[은/는] {colour}입니다."), ("색을 말해 주세요: {thing}.", "{thing}: {colour}.")],
        "category": [("'{x}'[은/는] {first}입니까, {second}입니까?", "'{x}'[은/는] {right}입니다.")],
        "list": [("{group} 세 가지를 말해 주세요.", "{items}입니다."), ("{group}의 예를 세 개 들어 주세요.", "예는 다음과 같습니다: {items}.")],
        "next": [("{x} 다음은 무엇입니까?", "{x} 다음은 {y}입니다.")],
        "sort": [("이 숫자를 정렬하세요: {numbers}.", "순서대로: {ordered}.")],
        "larger": [("{a}[과/와] {b} 중 어느 것이 더 큽니까?", "{larger}[이/가] 더 큽니다.")],
        "parity": [("{x}[은/는] 짝수입니까, 홀수입니까?", "{x}[은/는] {parity}입니다.")],
        "hello": [("안녕하세요!", "안녕하세요! 무엇을 도와드릴까요?"), ("어떻게 지내세요?", "잘 지냅니다, 고맙습니다."), ("당신은 누구입니까?", "저는 작은 언어 모델입니다."), ("고맙습니다!", "천만에요."), ("어떤 언어를 말합니까?", "저는 한국어로 대답합니다.")],
        "manual": [("설명서에서 '{x}'에 대해 무엇이라고 합니까?", "{sentence}"), ("'{x}'[을/를] 설명해 주세요.", "{sentence}"), ("'{x}'[을/를] 넣어 문장을 쓰세요.", "{sentence}")],
        "system": ["당신은 도움이 되는 도우미입니다.", "한 줄로 대답하세요."],
    },
}  # fmt: skip

# words: operator -> questions; story: operator -> questions; story2: the two operators in turn
WORD_PROBLEMS = {
    "en": {
        "who": ["Anna", "Tom", "Mary", "Peter", "Lucy"],
        "what": ["apples", "books", "coins", "pens", "cards"],
        "words": {"+": ["What is {a} plus {b}?", "Add {a} and {b}."], "-": ["What is {a} minus {b}?", "Subtract {b} from {a}."], "*": ["What is {a} times {b}?", "Multiply {a} by {b}."]},
        "story": {"+": ["{who} has {a} {what} and buys {b} more. How many {what} does {who} have now?"], "-": ["{who} has {a} {what} and gives away {b}. How many {what} are left?"]},
        "story2": {
            "++": ["{who} has {a} {what}, buys {b} more and then finds {c} more. How many {what} are there now?"],
            "+-": ["{who} has {a} {what}, buys {b} more and then loses {c}. How many {what} are left?"],
            "-+": ["{who} has {a} {what}, gives away {b} and then buys {c} more. How many {what} are there now?"],
            "--": ["{who} has {a} {what}, gives away {b} and then loses {c}. How many {what} are left?"],
        },
    },
    "zh": {
        "who": ["小明", "小红", "安娜", "王芳", "李雷"],
        "what": ["个苹果", "本书", "枚硬币", "支笔", "张卡片"],
        "words": {"+": ["{a}加{b}等于多少？", "请把{a}和{b}相加。"], "-": ["{a}减{b}等于多少？", "请从{a}中减去{b}。"], "*": ["{a}乘以{b}等于多少？", "请把{a}和{b}相乘。"]},
        "story": {"+": ["{who}有{a}{what}，又买了{b}{what}。现在一共有多少？"], "-": ["{who}有{a}{what}，送出了{b}{what}。还剩多少？"]},
        "story2": {
            "++": ["{who}有{a}{what}，又买了{b}{what}，后来又找到{c}{what}。现在一共有多少？"],
            "+-": ["{who}有{a}{what}，又买了{b}{what}，后来丢了{c}{what}。还剩多少？"],
            "-+": ["{who}有{a}{what}，送出了{b}{what}，后来又买了{c}{what}。现在一共有多少？"],
            "--": ["{who}有{a}{what}，送出了{b}{what}，后来丢了{c}{what}。还剩多少？"],
        },
    },
    "ru": {
        "who": ["Анна", "Иван", "Мария", "Пётр", "Ольга"],
        "what": ["яблоки", "книги", "монеты", "ручки", "карточки"],
        "words": {"+": ["Сколько будет {a} плюс {b}?", "Сложи {a} и {b}."], "-": ["Сколько будет {a} минус {b}?", "Вычти {b} из {a}."], "*": ["Сколько будет {a} умножить на {b}?", "Умножь {a} на {b}."]},
        "story": {"+": ["{who} считает {what}: было {a}, прибавилось {b}. Сколько стало?"], "-": ["{who} считает {what}: было {a}, убрали {b}. Сколько осталось?"]},
        "story2": {
            "++": ["{who} считает {what}: было {a}, прибавилось {b}, потом прибавилось ещё {c}. Сколько стало?"],
            "+-": ["{who} считает {what}: было {a}, прибавилось {b}, потом убрали {c}. Сколько осталось?"],
            "-+": ["{who} считает {what}: было {a}, убрали {b}, потом прибавилось {c}. Сколько стало?"],
            "--": ["{who} считает {what}: было {a}, убрали {b}, потом убрали ещё {c}. Сколько осталось?"],
        },
    },
    "fr": {
        "who": ["Anne", "Paul", "Marie", "Pierre", "Lucie"],
        "what": ["pommes", "livres", "pièces", "stylos", "cartes"],
        "words": {"+": ["Combien font {a} plus {b} ?", "Additionne {a} et {b}."], "-": ["Combien font {a} moins {b} ?", "Soustrais {b} de {a}."], "*": ["Combien font {a} fois {b} ?", "Multiplie {a} par {b}."]},
        "story": {"+": ["{who} a {a} {what} et en achète encore {b}. Combien de {what} a maintenant {who} ?"], "-": ["{who} a {a} {what} et en donne {b}. Combien de {what} reste-t-il ?"]},
        "story2": {
            "++": ["{who} a {a} {what}, en achète {b}, puis en trouve encore {c}. Combien de {what} cela fait-il ?"],
            "+-": ["{who} a {a} {what}, en achète {b}, puis en perd {c}. Combien de {what} reste-t-il ?"],
            "-+": ["{who} a {a} {what}, en donne {b}, puis en achète {c}. Combien de {what} cela fait-il ?"],
            "--": ["{who} a {a} {what}, en donne {b}, puis en perd {c}. Combien de {what} reste-t-il ?"],
        },
    },
    "de": {
        "who": ["Anna", "Paul", "Maria", "Peter", "Lena"],
        "what": ["Äpfel", "Bücher", "Münzen", "Stifte", "Karten"],
        "words": {"+": ["Was ist {a} plus {b}?", "Addiere {a} und {b}."], "-": ["Was ist {a} minus {b}?", "Ziehe {b} von {a} ab."], "*": ["Was ist {a} mal {b}?", "Multipliziere {a} mit {b}."]},
        "story": {"+": ["{who} hat {a} {what} und kauft noch {b}. Wie viele {what} sind es jetzt?"], "-": ["{who} hat {a} {what} und verschenkt {b}. Wie viele {what} bleiben übrig?"]},
        "story2": {
            "++": ["{who} hat {a} {what}, kauft noch {b} und findet dann noch {c}. Wie viele {what} sind es jetzt?"],
            "+-": ["{who} hat {a} {what}, kauft noch {b} und verliert dann {c}. Wie viele {what} bleiben übrig?"],
            "-+": ["{who} hat {a} {what}, verschenkt {b} und kauft dann {c}. Wie viele {what} sind es jetzt?"],
            "--": ["{who} hat {a} {what}, verschenkt {b} und verliert dann {c}. Wie viele {what} bleiben übrig?"],
        },
    },
    "ko": {
        "who": ["민수", "지영", "수진", "영호", "안나"],
        "what": ["사과", "책", "동전", "연필", "카드"],
        "words": {"+": ["{a} 더하기 {b}[은/는] 얼마입니까?", "{a}[과/와] {b}[을/를] 더하세요."], "-": ["{a} 빼기 {b}[은/는] 얼마입니까?", "{a}에서 {b}[을/를] 빼세요."], "*": ["{a} 곱하기 {b}[은/는] 얼마입니까?", "{a}[과/와] {b}[을/를] 곱하세요."]},
        "story": {"+": ["{who}[은/는] {what} {a}개를 가지고 있고 {b}개를 더 샀습니다. 모두 몇 개입니까?"], "-": ["{who}[은/는] {what} {a}개를 가지고 있다가 {b}개를 주었습니다. 몇 개가 남았습니까?"]},
        "story2": {
            "++": ["{who}[은/는] {what} {a}개를 가지고 있고 {b}개를 산 다음 {c}개를 더 찾았습니다. 모두 몇 개입니까?"],
            "+-": ["{who}[은/는] {what} {a}개를 가지고 있고 {b}개를 산 다음 {c}개를 잃어버렸습니다. 몇 개가 남았습니까?"],
            "-+": ["{who}[은/는] {what} {a}개를 가지고 있다가 {b}개를 주고 {c}개를 샀습니다. 모두 몇 개입니까?"],
            "--": ["{who}[은/는] {what} {a}개를 가지고 있다가 {b}개를 주고 {c}개를 잃어버렸습니다. 몇 개가 남았습니까?"],
        },
    },
}  # fmt: skip
