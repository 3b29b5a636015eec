"""The versions of a text: nothing that was ever shown is lost, and one can go on from each."""

from hypothesis import given, settings, strategies as st

from app.tabs.write.desk import Desk, Desks, Version


def write(desk, text, end, seed=1):
    """What a turn of the model does to a desk."""
    desk.note(text)
    desk.add(Version(typed=text + end, start=desk.now, seed=seed))


def test_undo_and_redo_walk_through_what_was_shown():
    desk = Desk()
    write(desk, "a", "b")
    write(desk, "ab", "c")
    assert [desk.undo(desk.now.text).text for _ in range(4)] == ["ab", "a", "a", "a"]
    assert [desk.redo(desk.now.text).text for _ in range(3)] == ["ab", "abc", "abc"]


def test_what_was_typed_after_a_turn_comes_back_by_redo():
    desk = Desk()
    write(desk, "a", "b")
    assert desk.undo("abX").text == "ab"
    assert desk.redo("ab").text == "abX"


def test_going_on_from_an_earlier_version_makes_a_branch_that_can_be_gone_back_to():
    desk = Desk()
    write(desk, "a", "b")
    desk.undo("ab")
    write(desk, "a", "c")
    assert [version.text for _, version in desk.ends()] == ["ac", "ab"]
    number = next(n for n, version in desk.ends() if version.text == "ab")
    assert desk.go_to(number, "ac").text == "ab"
    assert desk.go_to(10**6, "ab").text == "ab"


@given(st.lists(st.tuples(st.sampled_from(["type", "write", "undo", "redo", "go"]), st.integers(0, 9))))
@settings(max_examples=100, deadline=None)
def test_every_text_that_was_shown_is_kept(steps):
    desk, shown, texts = Desk(), "", {""}
    for what, n in steps:
        if what == "type":
            shown += str(n)
            continue
        if what == "write":
            write(desk, shown, f"<{n}>")
        elif what == "go":
            desk.go_to(n, shown)
        else:
            before = shown
            getattr(desk, what)(shown)
            assert before in {version.text for version in desk.versions}
        shown = desk.now.text
        if len(desk.versions) > 1:  # what is typed first has nothing before it to go back to
            texts.add(shown)
    assert texts - {""} <= {version.text for version in desk.versions}
    assert all(v.before is None or v.before in desk.versions for v in desk.versions)


def test_a_long_history_keeps_its_end_and_a_desk_that_is_cleared_begins_anew():
    desks = Desks()
    desk = desks.of("a")
    for number in range(500):
        write(desk, desk.now.text, "x", seed=number)
    assert len(desk.versions) <= 100 and len(desk.now.text) == 500
    assert desks.of("a") is desk and desks.of("b") is not desk
    desks.clear("a")
    assert desks.of("a").now.text == ""


def test_the_desks_of_those_who_were_away_for_longest_are_forgotten():
    desks = Desks()
    first = desks.of("first")
    for number in range(1000):
        desks.of(f"visit {number}")
    assert len(desks) <= 256 and desks.of("first") is not first
