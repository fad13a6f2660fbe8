#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
make_templates.py - what jinja2, set up as transformers sets it up, makes of chat templates.

    make_templates.py [OUT]                 default: tests/data/templates
    make_templates.py --random N SEED       N random programs as cases, to standard output

OUT holds templates (*.jinja) in the shapes of published ones, with texts of their own. Written there:

  shapes.json    [[template, context, expectation], ..]
  snippets.json  [[source, context, expectation], ..]; a context of null is COMMON
  refused.json   [[source, words], ..]: what jinja2 renders and weft refuses by name

An expectation is a string (the text), {"raised": message} for the template's own raise_exception(),
or {"error": kind}. The time is TIME, in UTC.
"""
import copy
import datetime
import json
import os
import random
import sys

import jinja2
from transformers.utils.chat_template_utils import _cached_compile_jinja_template

TIME = 1772193906.25
NOW = datetime.datetime.fromtimestamp(TIME, datetime.timezone.utc).replace(tzinfo=None)

COMMON = {
    "n": 7, "neg": -3, "big": 9007199254740993, "f": 2.5, "small": 1e-7, "huge": 1.5e300, "t": True, "no": False,
    "nil": None, "s": "Hello, World", "e": "", "u": "Äß漢字🙂 é", "multi": "a\n  b\n\nc\r\nd", "sp": "  x \t\n",
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "mixed": [1, "1", 1.0, None, True, [1], {"a": 1}], "el": [],
    "d": {"b": 2, "a": 1, "c": {"x": [10, 20]}}, "ed": {}, "items_of": {"items": [1, 2], "keys": "k", "get": 5},
    "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "hi"},
                 {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"q": "ü\"\n"}}}]},
                 {"role": "tool", "content": [{"type": "text", "text": "one"}, {"type": "image"}]},
                 {"role": "user", "content": "bye"}],
}


def strftime_now(format):
    return NOW.strftime(format)


def render(source, context):
    """The text, or what kind of failure."""
    try:
        template = _cached_compile_jinja_template(source)
        text = template.render(strftime_now=strftime_now, **copy.deepcopy(context))
        text.encode()
        return text
    except (jinja2.exceptions.UndefinedError, jinja2.exceptions.SecurityError) as e:
        return {"error": type(e).__name__}
    except jinja2.exceptions.TemplateError as e:
        if type(e) is jinja2.exceptions.TemplateError:
            return {"raised": str(e)}
        return {"error": type(e).__name__}
    except Exception as e:
        return {"error": type(e).__name__}


# --- conversations ---------------------------------------------------------------------------------

def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, call_id="abcdefghi"):
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}


def tool(text, call_id="abcdefghi"):
    return {"role": "tool", "content": text, "tool_call_id": call_id}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a place.\nNow.", "return": {"type": "string"},
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "A town, \"Köln\" <or> such"},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "array", "items": {"type": "integer"}},
        "more": {"type": ["string", "null"]}}}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "the time", "parameters": {"type": "object", "properties": {}}}}
SYSTEM = {"role": "system", "content": "  You answer in one word. "}
PARTS = [{"type": "text", "text": "What is "}, {"type": "image"}, {"type": "text", "text": "this?"}]

CONVERSATIONS = {
    "hello": [user("Hello!")],
    "system": [SYSTEM, user("Hi")],
    "turns": [user("a"), assistant(" b "), user("c\n"), assistant("d"), user("e")],
    "system turns": [SYSTEM, user("a"), assistant("b"), user("c")],
    "unicode": [user("Grüße 你好 🙂\u0301 \u200b\u00a0\"quoted\" \\ <b>&amp;</b>\t\x01")],
    "answered": [user("1+1?"), assistant("<think>\nOne and one.\n</think>\n\n2")],
    "thoughts kept": [user("1+1?"), assistant("2", reasoning_content="sum"), user("2+2?"), assistant("4", reasoning_content="\nsum\n")],
    "call": [user("Weather?"), assistant("", tool_calls=[call("get_weather", {"place": "Köln", "n": 1.5, "deep": {"a": [1, None, True]}})]),
             tool("18 °C"), assistant("18 degrees."), user("Thanks")],
    "call with text": [SYSTEM, user("Weather?"), assistant("Let me see.", tool_calls=[call("get_weather", {"place": "Ulm"})]), tool("19")],
    "two calls": [user("?"), assistant("", tool_calls=[call("clock", {}), call("get_weather", {"place": "X"}, "ihgfedcba")]),
                  tool("12:00"), tool("rain", "ihgfedcba"), assistant("Noon, rain.")],
    "arguments as text": [user("?"), assistant(None, tool_calls=[{"name": "clock", "arguments": "{\"zone\": 1}"}])],
    "bad id": [user("?"), assistant("", tool_calls=[call("clock", {}, "short")])],
    "parts": [{"role": "user", "content": PARTS}],
    "tool parts": [user("?"), {"role": "tool", "content": {"content": "inner"}, "tool_call_id": "abcdefghi"}],
    "out of turn": [user("a"), user("b")],
    "assistant first": [assistant("I begin"), user("ok")],
    "no content": [{"role": "user"}],
    "null content": [{"role": "user", "content": None}],
    "number content": [{"role": "user", "content": 5}],
    "other role": [user("a"), {"role": "critic", "content": "hm"}],
    "empty": [],
    "skip and stop": [user("a"), {"role": "skip", "content": "b"}, user("c\nd\n\ne"), {"role": "stop", "content": "f"}, user("g")],
    "late system": [user("a"), {"role": "system", "content": "now in rhyme"}, user("b")],
}
EXTRAS = {
    "": {"add_generation_prompt": True},
    "plain": {"add_generation_prompt": False, "bos_token": "<s>", "eos_token": "</s>"},
    "tools": {"add_generation_prompt": True, "tools": [WEATHER, CLOCK], "bos_token": "<s>", "eos_token": "</s>"},
    "tools apart": {"tools": [CLOCK], "tools_in_user_message": False, "date_string": "1 Jan 2030", "bos_token": "", "eos_token": "|"},
    "documents": {"add_generation_prompt": True, "documents": [{"doc_id": 1, "text": "Tea is hot."}, {"doc_id": "b", "text": "Ice\nis cold."}],
                  "controls": {"citations": True, "length": "short"}, "bos_token": "<s>", "eos_token": "</s>"},
    "thinking": {"add_generation_prompt": True, "enable_thinking": False, "thinking": True, "builtin_tools": ["clock", "code_interpreter"],
                 "available_tools": [CLOCK], "bos_token": "<s>", "eos_token": "</s>"},
}


def shapes(out):
    cases = []
    names = sorted(n for n in os.listdir(out) if n.endswith(".jinja"))
    for name in names:
        source = open(os.path.join(out, name), encoding="utf-8", newline="").read()
        for c, messages in CONVERSATIONS.items():
            for x, extra in EXTRAS.items():
                # All conversations with few settings, few with all.
                if x in ("", "tools") or c in ("hello", "call", "thoughts kept"):
                    context = {"messages": messages, **extra}
                    cases.append([name, [c, x], render(source, context)])
    return cases


# --- snippets ----------------------------------------------------------------------------------------

EXPRESSIONS = r"""
n|n + 2 * 3|n - 2 - 1|-n ** 2|2 ** 3 ** 2|2 ** -1|7 // 2|-7 // 2|7 // -2|7 % 3|-7 % 3|7 % -3|7 / 2|6 / 3|1 // 0|1 / 0|1 % 0|0 ** -1
7.5 // 2|-7.5 // 2|7.5 % 2|-7.5 % 2|7.5 % -2|1e16|1e15|123456789.123|1e-4|1e-5|1.0|100.0|0.1 + 0.2|1e300 * 1e10|-(0.0)|2.5 ** 2|5 * 1.0
1_000|0x1F|0o17|0b101|1_0.5e1_0|00|.5|5.|1.e3|1e+3|012|9223372036854775807|true|True|none|None|false|False|nil|t|no
t + t|t * 3|-t|+t|not t|not not n|not e|n and s|e and s|e or s|nil or false|n or nope|t and no or n|not t or n
1 < 2|1 < 2 < 3|1 < 3 < 2|1 == 1.0|1 == true|"a" < "b"|"a" < 1|[1, 2] < [1, 3]|[1] < [1, 0]|(1, 2) == [1, 2]|"a" == 'a'|nil == none|nil < 1
big == 9007199254740992.0|big > 9007199254740992.0|1 != 2 != 1|1 in l|4 in l|4 not in l|"a" in d|"x" in d|"llo" in s|"" in s|1 in s|1 in n|nope in l|"a" in nope
not 1 in l|not (1 in l)|1 in [1] in [[1]]|1.0 in l|true in l|none in mixed|[1] in mixed|{"a": 1} in mixed|{} in mixed
s ~ n ~ f ~ nil ~ t ~ nope|s ~ 1 + 2|1 + 2 ~ s|"a" ~ l ~ d|"x" "y" 'z'|"a" + "b" + "c"|"a" + 1|1 + "a"|l + [4]|l + (4,)|(1,) + (2,)|l * 2|2 * l|"ab" * 3|3 * "ab"|"ab" * -1|"ab" * 1.5|l - l
"a\nb\t\\\'\"\x41\u00e9\U0001F600\101\q\
z"|'it\'s'|"\ud800"|"\xzz"|"\u12"|'\N{DASH}'|"\0"|"\a\b\f\v\r"|""
n if t|n if no|n if no else f|(n if no) is defined|1 if no else 2 if no else 3|1 if t else 2 if no else 3|(1 if no else none)|"a" if n > 3 and s else "b"
[1, "a", 2.5, none, true, nope, [], {}, (), (1,), (1, 2)]|{"a": 1, 'b': [1], 3: none, none: 4, 1.5: 2}|{"a": 1, "a": 2}|{[1]: 2}|{(1, 2): 3}[(1, 2)]|{1: "a"}[1.0]|{1: "a"}[true]|[1, 2,]|{"a": 1,}|(1, 2,)|()|1, 2|(1)
["it's", 'a"b', "a'b\"c", "\\n", "\n\t\r", "\x00\x1f\x7f\x80\xa0\xad", "é漢🙂\u200b\ue000\u0378\u2028"]
s[0]|s[-1]|s[99]|s[1:3]|s[:-1]|s[::-1]|s[::2]|s[5:1:-2]|s[-100:100]|s[1:]|s[:]|u[1]|u[0:3]|u[::-1]|u[-2]|s["x"]|s[1.5]|s[nil]|s[t]|s[0:1:0]|s["a":2]|s[nope:]|s[none:2]
l[0]|l[-1]|l[3]|l[1:]|l[::-1]|l[5:]|l["a"]|l["0"]|l.0|l.1|l[1.0]|l[nope]|(1, 2)[0]|(1, 2, 3)[1:]|[[1, 2], [3]][0][1]|range(5)[2]|range(5)[-1]|range(5)[9]
d.a|d["a"]|d.c.x|d.c.x[1]|d.c["x"].0|d.zz|d.zz.y|d["zz"]["y"]|d[1]|d[[1]]|d[l]|d[0:1]|n.x|nil.x|nil.x.y|nope|nope.x|nope["x"]|nope()|nope + 1|-nope|nope < 1|nope == nope|nope == none|nope != 1|nope ~ 1|nope[0:1]
items_of.items|items_of["items"]|items_of.items()|items_of.keys|items_of["get"]|items_of.get("get")|d.items()|d.keys()|d.values()|d.items()[0]|d.keys()|list|d.get("a")|d.get("z")|d.get("z", 5)|d.get()|d.get("z", default=5)|d.get([1])|d.copy()
s.upper()|s.lower()|s.title()|s.capitalize()|s.strip("Hd")|sp.strip()|sp.lstrip()|sp.rstrip()|sp.strip(none)|"xxaxx".strip("x")|"ab12ba".strip("ab")|s.strip(1)|s.strip("a", "b")|s.strip(chars="H")
s.split()|s.split(", ")|s.split("l")|s.split("l", 1)|"  a  b c ".split()|"  a  b c ".split(none, 1)|" a b ".split(" ")|s.split("")|s.split(sep="l", maxsplit=1)|"a,b,c".rsplit(",", 1)|"a,b,c".rsplit(",")|" a b ".rsplit()|e.split()|e.split(",")|multi.splitlines()|multi.splitlines(true)|multi.split("\n")
s.startswith("He")|s.startswith(("x", "H"))|s.endswith("ld")|s.endswith("")|s.startswith(1)|s.startswith()|s.find("l")|s.find("z")|s.find("l", 4)|u.find("漢")|s.rfind("l")|s.index("W")|s.index("zz")|s.count("l")|s.count("")|"aaa".count("aa")|s.replace("l", "L")|s.replace("l", "L", 1)|s.replace("", "-")|"ab".replace("", "-", 2)|s.replace(1, 2)|s.replace("l")
", ".join(ls)|", ".join(l)|"-".join("abc")|"".join([])|",".join(d)|s.join(nope)|"{} and {}".format(1, "b")|"{0}{1}{0}".format("a", "b")|"{x}{{}}".format(x=none)|"{}".format()|"{".format(1)|"%s and %d" % ("a", 5)|"%s" % "x"|"%s" % l|"%5.2f|%-5d|%05d|%+d|%x" % (3.14159, 42, 42, 42, 255)|"%(a)s" % d|"%d" % "a"|"%s %s" % "a"|"%%" % ()|"%s" % (l,)|"%r" % s|"a" % 1|"%s" % nope|"%.2s" % s
s.ljust(15)|s.ljust(15, "漢")|s.rjust(14, "*")|s.rjust(3)|s.center(15)|"ab".center(5, ".")|"abc".center(6, ".")|"ab".center(7)|u.center(20, "-")|e.center(3, "x")|s.ljust(-1)|s.ljust()|s.center(20, "ab")|s.rjust(20, "")|s.center("9")|s.ljust(width=9)
"7".zfill(3)|"-7".zfill(4)|"+".zfill(3)|"--1".zfill(5)|e.zfill(2)|u.zfill(12)|s.zfill(2)|s.zfill()|s.zfill(99999999999)|s.swapcase()|e.swapcase()|s.casefold()|s.isascii()|u.isascii()|e.isascii()
s.islower()|s.isupper()|"a1".islower()|"A-B".isupper()|"1".isupper()|e.islower()|"aB".islower()|s.istitle()|"A1b".istitle()|"A1B c".istitle()|"AB".istitle()|"1".istitle()|e.istitle()
strftime_now("%-d.%-m.%y %-I:%M %p")|strftime_now("%_d %0e %^a %#Z %k|%l %P")|strftime_now("%-")|strftime_now("%")|strftime_now("%--d")|strftime_now("%-%")|strftime_now("x%^B%^h%-j%-H%-S%_H")
s.removeprefix("He")|s.removesuffix("ld")|s.removeprefix("zz")|s.partition(", ")|s.partition("zz")|"a-b-c".rpartition("-")|"12".isdigit()|"1a".isdigit()|e.isdigit()|"ab".isalpha()|"a1".isalnum()|" \n".isspace()|e.isspace()|l.index(1)|l.index(9)|l.count(1)|(1, 1).count(1)
s|upper|s|lower|s|title|"it's a-b (c) <d> e/f"|title|"HELLO wORLD"|capitalize|u|upper|"Äé"|upper|n|upper|nope|upper|nil|upper|l|upper|sp|trim|s|trim("Hd")|"xx"|trim(chars="x")|n|trim
s|length|u|length|l|length|d|length|n|length|nil|length|nope|length|l|count|range(4)|length|d.items()|length|s|first|s|last|l|first|l|last|d|first|d|last|el|first|el|last|(el|first) is defined|n|first|range(3)|last|nope|first|nope|last
l|join|l|join(", ")|ls|join("-")|s|join(",")|d|join|messages|join(",", attribute="role")|nope|join|n|join|mixed|join("|")|l|join(1)
nope|default|nope|default("x")|nope|d("x")|e|default("x")|e|default("x", true)|nil|default("x")|nil|default("x", boolean=true)|n|default(1)|d.zz|default("x")|d.zz.y|default("x")|nope|default(default_value=3)|nope|default(1, 2, 3)|nope|default(z=1)
l|list|s|list|d|list|n|list|nope|list|d.items()|list|ls|sort|ls|sort(true)|ls|sort(case_sensitive=true)|l|sort(reverse=true)|mixed|sort|messages|map(attribute="role")|sort|messages|sort(attribute="role")|map(attribute="role")|list|[[2, "a"], [1, "b"], [2, "A"]]|sort|[{"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 1}]|sort(attribute="a,b")|[{"a": 1, "k": 1}, {"a": 1, "k": 2}, {"a": 2, "k": 3}]|sort(attribute="a", reverse=true)
l|reverse|list|s|reverse|d|reverse|list|el|reverse|list|range(3)|reverse|list|n|reverse|l|map("string")|reverse|["a", "B", "A", "b", "c"]|unique|list|["a", "B", "A"]|unique(true)|list|[1, 1.0, true, "1"]|unique|list|[[1]]|unique|list|messages|unique(attribute="role")|map(attribute="role")|list
d|dictsort|d|dictsort(false, "value")|{"b": 1, "A": 2, "a": 3}|dictsort|{"b": 1, "A": 2, "a": 3}|dictsort(true)|{"b": 1, "A": 2}|dictsort(reverse=true)|{"b": 2, "a": 1}|dictsort(by="value")|{"b": 2}|dictsort(by="z")|l|dictsort|{1: 2, "a": 1}|dictsort
d|items|list|ed|items|list|nope|items|list|l|items|list|l|map("string")|list|l|map("float")|join(",")|messages|map(attribute="role")|list|messages|map(attribute="content.0.text")|list|messages|map(attribute="zz", default="-")|list|messages|map(attribute="tool_calls.0.function.name")|list|ls|map("upper")|join|ls|map("replace", "a", "x")|list|l|map|list|nope|map("upper")|list|["a", " b "]|map("trim")|list|l|map("zzz")|list
messages|selectattr("role", "equalto", "user")|map(attribute="content")|list|messages|selectattr("content")|list|length|messages|selectattr("tool_calls", "defined")|list|length|messages|rejectattr("role", "eq", "user")|list|length|messages|rejectattr("tool_calls")|list|length|messages|selectattr("role", "in", ["user", "tool"])|map(attribute="role")|list|messages|selectattr("content", "string")|list|length|messages|selectattr|list|messages|selectattr("content.0.type", "eq", "text")|list|length
l|select("gt", 1)|list|l|select(">", 1)|list|l|reject("odd")|list|l|select("even")|list|mixed|select("string")|list|mixed|select|list|mixed|reject|list|mixed|select("number")|list|mixed|select("none")|list|l|select("zzz")|list|l|select("divisibleby", 3)|list|l|select("lt", "a")|list|n|select|list|messages|selectattr("role", "equalto", "user")|first|l|select("gt", 5)|first|l|select("gt", 5)|list|length
d|tojson|u|tojson|mixed|tojson|nope|tojson|(1, 2)|tojson|d|tojson(indent=2)|d|tojson(2)|d|tojson(false, 2)|ed|tojson(indent=2)|el|tojson(indent=2)|[[], {}, [1]]|tojson(indent=1)|d|tojson(indent=0)|d|tojson(indent="--")|d|tojson(sort_keys=true)|u|tojson(ensure_ascii=true)|"🙂"|tojson(true)|d|tojson(separators=(",", ":"))|d|tojson(separators=(",", ":"), indent=1)|{1: 2, none: 3, true: 4, 1.5: 5}|tojson|{(1, 2): 3}|tojson|range(3)|tojson|d.items()|tojson|"</script>'&<>\u2028\x7f\x1f/"|tojson|[1.0, 1e100, -0.0, 0.1]|tojson|1e400|tojson|"a"|tojson|tojson
n|string|nil|string|f|string|nope|string|l|string|"12"|int|"12.7"|int|" 12 "|int|"abc"|int|"abc"|int(5)|"abc"|int(default=none)|12.9|int|-12.9|int|true|int|nil|int|l|int|"1_000"|int|"0x1f"|int(0, 16)|"1f"|int(base=16)|"101"|int(0, 2)|nope|int|"-5"|int|"1e3"|int|""|int|"١"|length
"1.5"|float|"abc"|float|"abc"|float(2)|5|float|"inf"|float|"1e3"|float|nil|float|nope|float|" 2 "|float|"nan"|float|"1_0.5"|float|-5|abs|-5.5|abs|t|abs|s|abs|nope|abs
2.5|round|3.5|round|2.567|round(2)|2.4|round|2.1|round(0, "ceil")|2.9|round(method="floor")|2.567|round(1, "floor")|5|round|5|round(2)|-2.5|round|1e20|round|"a"|round|2.5|round(method="x")|0.1 + 0.2|round(2)|2.675|round(2)|1.005|round(2)|0.5|round(0)
l|sum|[1, 2.5]|sum|l|sum(start=10)|messages|sum(attribute="zz")|[{"a": 1}, {"a": 2}]|sum("a")|ls|sum|el|sum|l|min|l|max|ls|min|ls|max(true)|el|min|mixed|min|[{"a": 2}, {"a": 1}]|min(attribute="a")
multi|indent|multi|indent(2)|multi|indent(2, true)|multi|indent(2, blank=true)|multi|indent("> ", true, true)|e|indent|"a\n"|indent|n|indent|"%s-%s"|format(1, "a")|"%s"|format|s|replace("l", "L")|s|replace("l", "L", 1)|s|replace("o", 0)|n|replace(7, 8)|s|replace("", ".")|s|replace("zz", "")
s is defined|nope is defined|d.zz is defined|nope is undefined|nil is none|nope is none|s is string|n is string|n is number|t is number|f is number|s is number|n is integer|t is integer|f is integer|f is float|n is float|t is boolean|n is boolean|t is true|n is true|no is false|nil is false
d is mapping|l is mapping|l is sequence|s is sequence|d is sequence|n is sequence|range(2) is sequence|l|map("string") is sequence|nope is sequence|l is iterable|s is iterable|n is iterable|nil is iterable|nope is iterable|d is iterable|d.items() is iterable|d.items() is sequence|d.items() is mapping|range is callable|s is callable|s.upper is callable|nope is callable
n is odd|n is even|f is odd|3.0 is odd|s is odd|n is divisibleby 7|n is divisibleby(2)|n is divisibleby 0|n is eq 7|n is equalto 7|n is ne 7|n is lt 8|n is le 7|n is gt 7|n is ge 7|n is greaterthan 5|n is lessthan 5|n is in [7]|s is in l|"a" is in d|n is not in [7]|n is not none|n is not defined|not n is defined|nil is sameas none|t is sameas true|no is sameas none|1 is sameas true
"abc" is lower|"aBc" is lower|"ABC" is upper|"AB1" is upper|"1" is upper|e is lower|n is lower|n is odd and f is float|n is defined and n|n + 1 is odd|n is zzz|n|zzz|s|upper|lower|title|s|length + 1|-n|abs|-5|abs + 1|n is odd is odd|nope is defined or t|(s|length) is odd|s|length is odd
range(3)|range(1, 4)|range(4, 1, -1)|range(0)|range(3)|list|range(1, 10, 3)|list|range(5, 0, -2)|list|range(1.5)|range("a")|range()|range(1, 2, 0)|range(100001)|range(100000)|length|range(t)|2 in range(3)|2.0 in range(3)|5 in range(3)|"a" in range(3)|range(3) == range(0, 3)|range(0) == range(2, 2)|nope in range(2)
dict(a=1, b=2)|dict([("a", 1)], b=2)|dict(d)|dict(d, a=5)|dict([1])|dict(1)|dict()|dict("ab")|dict([["x", 1], ("y", 2)])|namespace(a=1).a|namespace(a=1).b|namespace(d).a|namespace(d, a=9).a|namespace(_a=1)|namespace().x is defined|namespace(a=[1, 2]).a[1]
strftime_now("%d %b %Y")|strftime_now("%Y-%m-%d %H:%M:%S %A %j %p %I %y %B %a %U %w %%")|strftime_now("%f")|strftime_now("")|strftime_now()|strftime_now("%F %T|%D|%R|%e|%h|%G-%V-%u|%c|%x|%X|%Z%z.")|strftime_now(1)|strftime_now(format="%Y")
raise_exception("bad thing")|raise_exception("a" ~ n ~ l)|raise_exception()|raise_exception("ü漢")|raise_exception(n)
n.real|n.__class__|s.__len__|s.__class__.__mro__|d.__class__|d["__class__"]|l.append(1)|d.update({})|d.pop("a")|l.sort|s.zzz|d.clear()|s.nothing()|n()|s()|l()|d()|messages[0].role.upper()|messages[-1]["content"]|messages[9].role|messages[0]["zz"]["y"]
loop|caller_is|foo.bar.baz|l[0].x.y|d.a.b.c|self_is|(n)|((n))|(n, )|[n][0]|{"k": n}.k|{"k": n}["k"]|{"get": n}.get|"abc".upper().lower()[1]|[1, 2, 3][1:][0]|"a,b".split(",")[1]|(1, 2)|length|[1, 2]|length > 1|not l|length
s|d.a|f ** 2|n is string or n is number|"x" if nope else "y"|"x" if nope is defined and nope.x else "y"|nope or "z"|nope and nope.x|nope.x or 1|l[0] if l else none|(d.zz or {}).y|(d.zz or d).a|[nope]|[nope]|length|{"a": nope}|nope is in [nope]
1 +|* 2|(1|[1|{1|{"a"}|{"a":}|"abc|1 2|a b|a..b|.a|a.|a[|a[]|a[1:2:3:4]|f(|f(a=1, 2)|f(a=1, a=2)|a|a||b|x is|x is not|not|1 if|if|and|1 == |a = 1|a ? b|a & b|$a|a;b|}}|#}|%}|{{|{%|é|f(*l)|s.split(*["l"])|dict(**d)|a[1, 2]|d["a", "b"]
"""


def expressions():
    """Pieces between bars; a bar before a filter's name belongs to the expression."""
    filters = {"upper", "lower", "title", "capitalize", "trim", "length", "count", "first", "last", "join", "default", "d", "list", "sort",
               "reverse", "unique", "dictsort", "items", "map", "select", "reject", "selectattr", "rejectattr", "tojson", "string", "int",
               "float", "abs", "round", "sum", "min", "max", "indent", "format", "replace", "zzz"}
    found = []
    for line in EXPRESSIONS.strip("\n").replace("\\\nz", "\x1e").split("\n"):
        current = ""
        depth, quote = 0, None
        parts = []
        for c in line:
            if quote:
                if c == quote and not current.endswith("\\"):
                    quote = None
            elif c in "\"'":
                quote = c
            elif c in "([{":
                depth += 1
            elif c in ")]}":
                depth -= 1
            if c == "|" and not quote and depth <= 0:
                parts.append(current)
                current = ""
            else:
                current += c
        parts.append(current)
        for p in parts:
            word = ""
            for c in p:
                if not (c.isalpha() or c == "_"):
                    break
                word += c
            rest = p[len(word):].lstrip()
            if found and parts.index(p) and word in filters and rest[:1] in ("", "(", "+", ">", "i") and not (word in ("d", "list") and rest[:1] == "" and parts[0] in ("n",)):
                found.append(found[-1] + "|" + p)
            else:
                found.append(p)
    return ["{{ " + e.replace("\x1e", "\\\nz") + " }}" for e in dict.fromkeys(found)]


STATEMENTS = r"""
{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %}
{% if nope %}a{% endif %}b
{% if n %}{% set x = 1 %}{% endif %}{{ x }}
{% if no %}{% set x = 1 %}{% endif %}{{ x is defined }}
{% if no %}a{% elif no %}b{% elif t %}c{% else %}d{% endif %}
{% if e or (n and not no) %}yes{% endif %}
{% if 1, 2 %}tuple{% endif %}
{% if n == 7: %}colon{% endif %}
{% for x in l %}{{ x }},{% endfor %}
{% for x in el %}{{ x }}{% else %}none{% endfor %}
{% for x in nope %}{{ x }}{% else %}none{% endfor %}
{% for x in n %}{{ x }}{% endfor %}
{% for x in none %}{{ x }}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}
{% for k in d %}{{ k }}{% endfor %}
{% for a, b in [[1, 2], (3, 4), "xy"] %}{{ a }}{{ b }} {% endfor %}
{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}
{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for (a, b) in [[1, 2]] %}{{ a }}{{ b }}{% endfor %}
{% for x, in [[1], [2]] %}{{ x }}{% endfor %}
{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}
{% for x in l if x > 5 %}{{ x }}{% else %}none{% endfor %}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}
{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}
{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }} {% endfor %}
{% for x in l if x != 1 %}{{ loop.previtem | default("-") }}{{ x }}{{ loop.nextitem | default("-") }}{{ loop.last }} {% endfor %}
{% for x in l | map("string") %}{{ x }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }} {% endfor %}
{% for x in l | select("gt", 1) %}{{ loop.nextitem }}{{ loop.length }}{{ loop.index }} {% endfor %}
{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }}{{ loop.cycle("a", "b", "c") }} {% endfor %}
{% for x in l %}{{ loop.cycle() }}{% endfor %}
{% for x in l %}{{ loop.zzz }}|{{ loop.zzz is defined }}{% endfor %}
{% for x in l %}{% for y in ls %}{{ loop.index }}{{ x }}{{ y }} {% endfor %}{{ loop.index }}{% endfor %}
{% for x in l %}{% set outer = loop %}{% for y in "ab" %}{{ outer.index }}.{{ loop.index }} {% endfor %}{% endfor %}
{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}
{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in l %}{% break %}{% else %}else{% endfor %}
{% for x in l %}{% continue %}{% else %}else{% endfor %}
{% for x in l %}{% if loop.index == 2 %}{% break %}{% endif %}{% else %}else{% endfor %}
{% for x in l %}{% for y in ls %}{% if y == "A" %}{% break %}{% endif %}{{ x }}{{ y }}{% endfor %};{% endfor %}
{% for x in l %}{% for y in el %}{% else %}{% break %}{% endfor %}{{ x }}{% endfor %}
{% break %}
{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% set x = 0 %}{% for y in l %}{{ x }}{% set x = x + y %}{{ x }} {% endfor %}{{ x }}
{% for y in l %}{% set z = y %}{% endfor %}{{ z is defined }}
{% for x in l %}{% endfor %}{{ x is defined }}
{% for loop in l %}{% endfor %}
{% for x in l %}{% set loop = 1 %}{% endfor %}
{{ loop is defined }}{% for x in l %}{{ loop is defined }}{% endfor %}
{% for x in l recursive %}{{ x }}{% endfor %}
{% for x in range(3) %}{{ x }}{% endfor %}{% for c in "añ🙂" %}<{{ c }}>{% endfor %}
{% set g = l | map("string") %}{% for x in g %}{{ x }}{% endfor %}/{% for x in g %}{{ x }}{% endfor %}
{% set g = l | map("string") %}{{ g | first }}{{ g | list }}{{ g | list }}
{% set ns = namespace(stop=false) %}{% for x in l if not ns.stop %}{{ x }}{% if x == 1 %}{% set ns.stop = true %}{% endif %}{% endfor %}
{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}
{% set ns = namespace(d) %}{% set ns.new = ns.a %}{{ ns.new }}{{ ns.zz is defined }}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% set d.x = 1 %}
{% set nope.x = 1 %}
{% set ns = namespace(a=1) %}{% set ns.a, x = 5, 6 %}{{ ns.a }}{{ x }}
{% set ns = namespace() %}{% set ns.items = 3 %}{{ ns.items }}
{% set x = 1 %}{% set x = x + 1 %}{{ x }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% set a, b = [1, 2] %}{{ b }}{{ a }}
{% set a, b = 1 %}{{ a }}
{% set a, b = [1] %}{{ a }}
{% set a = 1, 2 %}{{ a }}
{% set (a, b) = "xy" %}{{ b }}
{% set x %}a{{ n }}b{% endset %}[{{ x }}]{{ x | length }}{{ x is string }}
{% set x | upper | replace("A", "_") %}a{{ n }}b{% endset %}{{ x }}
{% set x %}{% set y = 5 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}
{% set ns = namespace() %}{% set ns.x %}in{% endset %}{{ ns.x }}
{% set true = 1 %}
{% set 1 = 2 %}
{% set x %}
{% set x = %}
{% set n = n + 1 %}{{ n }}
{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}
{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}
{% with a = 1 %}{% with a = a + 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}{% endwith %}
{% with a, b = 1 %}{% endwith %}
{% filter upper %}a{{ s }}b{% endfilter %}
{% filter upper | lower %}aB{% endfilter %}
{% filter replace("a", "b") | trim %} aaa {% endfilter %}
{% filter zzz %}{% endfilter %}
{% macro m() %}x{% endmacro %}{{ m() }}{{ m() | upper }}{{ m() ~ "y" }}
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c=4) }} {{ m(b=5) }} {{ m() }} {{ m(1, 2, 3) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}{{ m(nope) }}
{% macro m(a="d") %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}{{ m(nope) }}{{ m(none) }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}
{% macro m(a) %}{{ a }}{{ varargs | join(",") }}{{ kwargs.z }}{% endmacro %}{{ m(1, 2, 3, z=4) }}
{% macro m(a, a2=1, b) %}{% endmacro %}
{% macro f(x) %}{{ x if x <= 1 else f(x - 1) ~ x }}{% endmacro %}{{ f(5) }}
{% macro f(x) %}{% if x %}({{ f(x[1:]) }}){% endif %}{% endmacro %}{{ f("abcd") }}
{% macro m() %}{{ late }}{% endmacro %}{% set late = 3 %}{{ m() }}
{% macro m() %}{% set n = 1 %}{{ n }}{% endmacro %}{{ m() }}{{ n }}
{% macro m() %}{{ n }}{% endmacro %}{% set n = 99 %}{{ m() }}
{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}
{% for n in l %}{{ show() }}{% endfor %}{% macro show() %}{{ n }}{% endmacro %}
{% macro show() %}{{ n }}{% endmacro %}{% for n in l %}{{ show() }}{% endfor %}
{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}
{% macro m(x) -%}   {{ x }}   {%- endmacro %}[{{ m(1) }}]
{{ m is defined }}{% macro m() %}{% endmacro %}{{ m is defined }}{{ m is callable }}{{ m }}
{% macro m %}{% endmacro %}
{% call m() %}{% endcall %}
{% generation %}a{{ n }}{% set q = 1 %}{% endgeneration %}b{{ q is defined }}
{% for x in l %}{% generation %}{{ x }}{{ loop.index }}{% endgeneration %}{% endfor %}
{% raw %}{{ n }}{% x %}{# c #}{% endraw %}
a {%- raw %} {{ x }} {% endraw -%} b
a {%- raw -%} {{ x }} {%- endraw -%} b
  {% raw %}
x
  {% endraw %}
y
{% raw %}never ends
a{# comment #}b
a {#- comment -#} b
a
  {# comment #}
b
a {#+ c +#}
b
{# never ends
{# {{ n }} {% if %} #}x
a {{- n -}} b
a {{ n -}}
   b
{{- n }} {{+ n }}
{{-1}} {{ -1 }} {{+1}}
   {% if t %}
   x
   {% endif %}
y
   {%+ if t %}
   x
   {%+ endif +%}
y
a   {% if t %}
b{% endif %}

c
{% if t -%}
   x
{%- endif %}
y
{% if t %}{% endif %}

z
	{% if t %}	
tab{% endif %}
 {{ n }}
{{ n }}
 {{ n }} {% if t %} x {% endif %} y
{{ s }}


{{ "a}}b" }}{{ '%}' }}{{ {"a": {"b": 1}}["a"]["b"] }}{{ {"a": {}} }}
{{ {} }}{{ {"a": 1} }}
{% if "%}" %}x{% endif %}
{{ "{{" }}{{ "{%" }}{{ "#}" }}
a { b } % # {a} {
{ { n } }
{{
  n
  +
  1
}}
{%
  if n
%}x{%
  endif
%}
{{ n
{% if n %}
{% endif %}
{% if n %}{% endfor %}
{% zzz %}
{% %}
{% if %}x{% endif %}
{% for x %}{% endfor %}
{% for x in %}{% endfor %}
{% for 1 in l %}{% endfor %}
{% for x.y in l %}{% endfor %}
{% for x in l %}{% else %}{% else %}{% endfor %}
{% if n %}{% else %}{% elif n %}{% endif %}
{% endmacro %}
{% if n }}x{% endif %}
{{ n %}
{{ (n] }}
{{ n) }}
{{ }}
{{ n n }}
{% include "x" %}
{% import "x" as y %}
{% extends "x" %}
{% do l %}
{% debug %}
{% set x = l %}{% set y = x + [4] %}{{ x }}{{ y }}
{% set x = d %}{{ x.items() | list }}{{ x | length }}
{% set a = [1, 2] %}{% set b = a %}{{ a == b }}{{ a is sameas none }}
{{ messages | selectattr("role", "equalto", "user") | map(attribute="content") | join(" / ") }}
{% for m in messages %}{{ m.role }}: {{ m.content if m.content is string else m.content | tojson }}
{% endfor %}
{% for m in messages %}{% if m['tool_calls'] is defined %}{% for c in m.tool_calls %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}{% endfor %}){% endfor %}{% endif %}{% endfor %}
{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role }} {% endfor %}
{% for m in messages[1:] %}{% if loop.previtem and loop.previtem.role == "user" %}<{{ m.role }}>{% endif %}{% endfor %}
{% set ns = namespace(found=none) %}{% for m in messages %}{% if ns.found is none and m.role == "user" %}{% set ns.found = loop.index0 %}{% endif %}{% endfor %}{{ ns.found }}
{% if messages and messages[0].role == "system" %}{% set sys = messages[0].content %}{% set messages = messages[1:] %}{% endif %}{{ sys }}{{ messages | length }}
{{ messages[0] }}{{ messages[2].tool_calls[0] }}
{% if n is defined and n is not none and n > 3 %}x{% endif %}
{% if not nope is defined %}{% set nope = "now" %}{% endif %}{{ nope }}
{{ raise_exception("stop") if n > 5 else "go" }}
{% if n > 5 %}{{ raise_exception("line three") }}{% endif %}
{{ "a" | safe }}{{ "<b>" | safe | upper }}{{ ("a" | safe) ~ "<" }}{{ ["<", "x" | safe] | join("&") }}{{ "a" | safe == "a" }}
{{ true and "x" }}{{ [] or {} }}{{ 0 or "" or none }}
{{ 1 if true }}{{ 1 if false }}x
{{ "%s" | format("x") }}{{ "a" "b" ~ "c" }}
{{ n.__class__ is defined }}
{{ (1, 2, 3)[::-1] }}{{ "abc"[::-1] }}{{ [1, 2, 3][-2:] }}
{{ {"a": 1}.items() | list }}{{ {"b": 1, "a": 2} | dictsort }}
{{ d.c.x | map("string") | join("+") }}{{ d | length }}{{ d.c }}
{% set s = "shadow" %}{% macro m(s) %}{{ s }}{% endmacro %}{{ m("arg") }}{{ s }}
{% for i in range(3) %}{% for j in range(i) %}{{ i }}{{ j }} {% endfor %}{% endfor %}
{% set ns = namespace(t="") %}{% for c in "abc" %}{% set ns.t = c ~ ns.t %}{% endfor %}{{ ns.t }}
{% for x in l %}{% if loop.first %}[{% endif %}{{ x }}{% if not loop.last %}, {% else %}]{% endif %}{% endfor %}
{% for x in l %}{{ x }}{{ ", " if not loop.last }}{% endfor %}
{% set x = [] %}{% for y in l %}{% set x = x + [y] %}{% endfor %}{{ x }}
{% set ns = namespace(x=[]) %}{% for y in l %}{% set ns.x = ns.x + [y * 2] %}{% endfor %}{{ ns.x }}
{% print n %}
"""


def statements():
    """One a line; blocks of lines that belong together are given by hand."""
    lines = STATEMENTS.strip("\n").split("\n")
    together = [
        "a\n  {# comment #}\nb", "a {#+ c +#}\nb", "a {{ n -}}\n   b", "   {% if t %}\n   x\n   {% endif %}\ny",
        "   {%+ if t %}\n   x\n   {%+ endif +%}\ny", "a   {% if t %}\nb{% endif %}\n\nc", "{% if t -%}\n   x\n{%- endif %}\ny",
        "{% if t %}{% endif %}\n\nz", "\t{% if t %}\t\ntab{% endif %}\n {{ n }}\n{{ n }}", "{{ s }}\n\n\n", "{{\n  n\n  +\n  1\n}}",
        "{%\n  if n\n%}x{%\n  endif\n%}", "  {% raw %}\nx\n  {% endraw %}\ny",
        "{% for m in messages %}{{ m.role }}: {{ m.content if m.content is string else m.content | tojson }}\n{% endfor %}",
    ]
    return list(dict.fromkeys(lines + together + [
        "a\r\nb\rc\n", "a\n\n", "\n", "", "\n{{ n }}\n", "{{ 'a\r\nb' }}", "{% if t %}\r\nx{% endif %}", "x\u00a0{%- if t %}y{% endif %}",
        "{# a #}\n{# b #}\nx", "{{ n }}\n{% if t %}\n{% endif %}\nx", " {#- c #}\n x", "{{ '\u2028' }}\x1c{{- n }}"]))


# What jinja2 renders, and weft refuses: [source, what the message names].
REFUSED = [
    ["{{ s | urlencode }}", "urlencode"], ["{{ l | batch(2) | list }}", "batch"], ["{{ s | wordcount }}", "wordcount"],
    ["{{ messages | groupby('role') | length }}", "groupby"], ["{{ s | truncate(3) }}", "truncate"], ["{{ s | escape }}", "escape"],
    ["{{ l | pprint }}", "pprint"], ["{{ 'x' is filter }}", "filter"], ["{{ lipsum is defined }}", "lipsum"],
    ["{{ cycler(1, 2).next() }}", "cycler"], ["{% for x in l recursive %}{{ x }}{% endfor %}", "recursive"],
    ["{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}", "call"], ["{% block x %}{% endblock %}", "block"],
    ["{% autoescape true %}{% endautoescape %}", "autoescape"], ["{{ 2 ** 64 }}", "64 bits"], ["{{ 9223372036854775808 }}", "64 bits"],
    ["{{ 9223372036854775807 + 1 }}", "64 bits"], ["{{ (0 - 1) ** 0.5 }}", "complex"], ["{{ s.expandtabs() }}", "expandtabs"], ["{{ 'é'.swapcase() }}", "ASCII"],
    ["{{ 'straße' | upper }}", "U+00DF"], ["{{ 'ΟΔΟΣ' | lower }}", "U+03A3"], ["{{ dict(*[d]) }}", "*"], ["{{ ('a' | safe) + 'b' }}", "safe"],
    ["{{ range(9)[1:3] }}", "range"], ["{{ 'é' is lower }}", "ASCII"], ["{{ 'été'.title() }}", "ASCII"], ["{{ s.encode() }}", "encode"],
    ["{{ l | map('string') }}", "generator"], ["{{ namespace(a=1) }}", "namespace"], ["{% print n %}", "print"], ["{{ s.upper }}", "method"],
    ["{{ '{:>5}'.format(1) }}", "format"], ["{{ '%c' % 65 }}", "%"], ["{{ 'a\\N{EM DASH}' }}", "\\N"], ["{{ strftime_now('%s') }}", "%s"],
    ["{% set é = 1 %}{{ é }}", "ASCII"], ["{{ d.keys() == d.keys() }}", "views"], ["{{ s is sameas s }}", "sameas"],
    ["{{ 12.34 | round(-1) }}", "precision"], ["{{ n.bit_length() }}", "bit_length"], ["{{ range(3).start }}", "range"],
]


# --- random programs -----------------------------------------------------------------------------------

class Maker:
    """Programs that are mostly valid, over the variables of COMMON."""

    NAMES = ["n", "neg", "f", "t", "no", "nil", "s", "e", "u", "sp", "l", "ls", "mixed", "el", "d", "ed", "messages", "x", "y", "nope"]
    BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
    TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "iterable",
             "sequence", "odd", "even", "eq 1", "ne 'a'", "in l", "gt 0", "lt(2)", "divisibleby 2"]
    FILTERS = ["upper", "lower", "trim", "length", "first", "last", "list", "string", "int", "float", "abs", "round", "tojson", "reverse|list",
               "sort", "unique|list", "join(',')", "default('-')", "default('-', true)", "title", "capitalize", "replace('a', 'b')", "map('string')|list",
               "select|list", "reject('none')|list", "select('number')|list", "items|list", "dictsort", "indent(2)", "map(attribute='role')|list",
               "selectattr('role')|list|length", "sum", "min", "max", "tojson(indent=1)", "count"]
    METHODS = ["upper()", "lower()", "strip()", "split()", "split('l')", "startswith('H')", "endswith('d')", "replace('l', 'LL')", "items()|list",
               "keys()|list", "values()|list", "get('a')", "get('z', 1)", "title()", "find('o')", "rstrip('d')", "splitlines()", "count('l')", "index(1)"]
    LITERALS = ["0", "1", "2", "-1", "3.5", "'a'", "\"b c\"", "''", "[]", "[1, 'a']", "{}", "{'a': 1}", "(1, 2)", "none", "true", "false", "10"]

    def __init__(self, rng):
        self.rng = rng

    def expression(self, depth):
        r = self.rng
        if depth <= 0 or r.random() < 0.15:
            return r.choice(self.NAMES) if r.random() < 0.65 else r.choice(self.LITERALS)
        k = r.randrange(14)
        sub = lambda: self.expression(depth - 1)
        if k < 3:
            return f"{sub()} {r.choice(self.BINARY)} {sub()}"
        if k == 3:
            return f"({sub()} {r.choice(self.BINARY)} {sub()})"
        if k < 6:
            return f"{self.primary(depth)}|{r.choice(self.FILTERS)}"
        if k == 6:
            return f"{self.primary(depth)} is {'not ' if r.random() < 0.3 else ''}{r.choice(self.TESTS)}"
        if k == 7:
            return f"not {sub()}"
        if k == 8:
            return f"{sub()} if {sub()} else {sub()}" if r.random() < 0.8 else f"({sub()} if {sub()})"
        if k == 9:
            return f"{self.primary(depth)}.{r.choice(self.METHODS)}"
        if k == 10:
            # Of names: jinja2 folds a slice of a constant that cannot be sliced into nothing.
            return f"{r.choice(self.NAMES)}[{r.choice(['0', '-1', '1:', ':2', '::-1', '::2', repr('a'), repr('role'), '1:3', 'n', '-3:', '5'])}]"
        if k == 11:
            return f"{self.primary(depth)}.{r.choice(['a', 'role', 'content', 'c', 'x', 'zz', 'items', 'name'])}"
        if k == 12:
            return r.choice(["[{}, {}]", "({}, {})", "{{'k': {}, 'j': {}}}", "dict(a={}, b={})", "-({})|length + ({})"]).format(sub(), sub())
        return r.choice(["range({})|list", "range(1, {})|list", "-{}", "+{}", "{} ** 2", "{}|d(0)"]).format(self.primary(depth))

    def primary(self, depth):
        return self.rng.choice(self.NAMES) if self.rng.random() < 0.7 else f"({self.expression(depth - 1)})"

    def tag(self, inside):
        r = self.rng
        return "{%" + r.choice(["", "", "", "-", "+"]) + " " + inside + " " + r.choice(["", "", "", "-", "+"]) + "%}"

    def text(self):
        return self.rng.choice(["a", " ", "\n", "\n  ", "  b ", "\n\n", "", "{", "}", " x\n", "\t"])

    def statement(self, depth, loop):
        r = self.rng
        body = lambda more=loop: self.body(depth - 1, more)
        e = lambda d=2: self.expression(d)
        k = r.randrange(16)
        if depth <= 0 or k < 6:
            return "{{" + r.choice(["", "", "-"]) + f" {e(3)} " + r.choice(["", "", "-"]) + "}}"
        if k == 6:
            return self.tag(f"set {r.choice('xy')} = {e()}")
        if k == 7:
            return self.tag(f"if {e()}") + body() + (self.tag(f"elif {e()}") + body() if r.random() < 0.3 else "") + \
                (self.tag("else") + body() if r.random() < 0.5 else "") + self.tag("endif")
        if k < 11:
            head = r.choice([f"for x in {e()}", "for x in l", "for y in ls", f"for x in l if {e()}", "for x, y in d.items()", "for x in messages",
                             "for y in s", "for x in mixed if x", f"for x in {self.primary(2)}|list"])
            return self.tag(head) + self.body(depth - 1, True) + (self.tag("else") + body() if r.random() < 0.3 else "") + self.tag("endfor")
        if k == 11:
            return self.tag(f"set {r.choice('xy')}") + self.body(depth - 1, False) + self.tag("endset")
        if k == 12:
            return self.tag(f"with x = {e()}, y = {e()}") + self.body(depth - 1, False) + self.tag("endwith")
        if k == 13 and loop:
            return r.choice([self.tag("if " + e()) + self.tag(r.choice(["break", "continue"])) + self.tag("endif"),
                             "{{ loop." + r.choice(["index", "index0", "first", "last", "length", "revindex", "previtem", "nextitem"]) + " }}",
                             "{{ loop.cycle('a', 'b') }}"])
        if k == 14:
            name = r.choice(["p", "q"])
            return self.tag(f"macro {name}(a, b={e(1)})") + "{{ a }}" + self.body(depth - 1, False) + "{{ b }}" + self.tag("endmacro") + \
                "{{ " + name + r.choice(["(1)", "(n, 2)", "(b=s)", f"({e(1)})"]) + " }}"
        return "{#" + r.choice(["", "-", "+"]) + " c " + r.choice(["", "-", "+"]) + "#}"

    def body(self, depth, loop):
        return "".join(self.text() + self.statement(depth, loop) for _ in range(self.rng.randrange(1, 4))) + self.text()


def random_cases(count, seed):
    maker = Maker(random.Random(seed))
    cases = []
    while len(cases) < count:
        source = maker.body(maker.rng.randrange(4), False)
        want = render(source, COMMON)
        # Python's own addresses, and what only Python can: no expectation.
        if isinstance(want, str) and (" at 0x" in want or len(want) > 2000):
            continue
        cases.append([source, None, want])
    return cases


def write(path, head, cases):
    with open(path, "w", encoding="utf-8") as f:
        f.write("{" + "".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)},\n" for k, v in head.items()) + '"cases": [\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]}\n")


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--random":
        write("/dev/stdout", {"time": TIME, "common": COMMON}, random_cases(int(sys.argv[2]), int(sys.argv[3])))
        return
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/data/templates"
    refused = {source for source, _ in REFUSED}
    for source, _ in REFUSED:
        got = render(source, COMMON)
        assert isinstance(got, str), (source, got)
    snippets = [[s, None, render(s, COMMON)] for s in expressions() + statements() if s not in refused]
    snippets = [c for c in snippets if not (isinstance(c[2], str) and " at 0x" in c[2])]
    snippets += random_cases(600, 1)
    write(os.path.join(out, "snippets.json"), {"time": TIME, "common": COMMON}, snippets)
    write(os.path.join(out, "refused.json"), {"time": TIME, "common": COMMON}, REFUSED)
    write(os.path.join(out, "shapes.json"), {"time": TIME, "conversations": CONVERSATIONS, "extras": EXTRAS}, shapes(out))


if __name__ == "__main__":
    main()
