"""Views to write down, one plain and one of names and texts that mean something in every format."""

from __future__ import annotations

from gcache.evaluation.cost import Cost
from gcache.gnn.topology import DECISION
from gcache.inspect.view import Curve, Frame, View, ViewEdge, ViewNode

#: Quotes, bars, markup, escapes, line ends, control characters, half a character.
HOSTILE = 'a "b" | <c> & \\d\\" #quot; `e` %\n\r\n\x00\x1b[31m\x85\u2028\ud800\uffff é 計'
#: The same, but for what a file of XML cannot hold.
CLEANED = 'a "b" | <c> & \\d\\" #quot; `e` %\n\n\ufffd\ufffd[31m\ufffd\u2028\ufffd\ufffd é 計'
OTHER = HOSTILE + "\x01"  # another one that is cleaned to a like name

COST = Cost(-0.25, -0.5, 0.0, 8, 4)
EDGES = (
    ViewEdge("planner", DECISION, 0.75, low=0.5, high=1.0, kept=0.5, cost=COST),
    ViewEdge("critic", DECISION, 0.04, low=0.01, high=0.1, kept=0.0),
    ViewEdge("planner", "critic", 0.5, low=0.25, high=0.75, kept=1.0),
    ViewEdge("planner", "critic", 0.25, later=True, low=0.0, high=0.5, kept=0.25),
)
NODES = (ViewNode("critic", "critic"), ViewNode("planner", "planner"), ViewNode(DECISION, DECISION, True))
#: Of a checkpoint.
PLAIN = View(
    "toy: run", "edges by role, mean over 8 questions", "toy", "tiny", 2, NODES,
    (Frame(0, "before step 1", EDGES[:1]), Frame(2, "after 2 steps", EDGES)),
    curves=(Curve("utility of the rollouts", ((1, 0.5), (2, 0.25))),),
)  # fmt: skip
#: Of one question, whose agents are called as nobody should be.
WILD = View(
    HOSTILE, "one question", "toy", HOSTILE, 2,
    (
        ViewNode(
            HOSTILE, HOSTILE, False, (("turns", HOSTILE),), HOSTILE, HOSTILE, ((HOSTILE, "x"),), HOSTILE, (0.25, 0.75)
        ),
        ViewNode(OTHER, OTHER, False, (("turns", "think"),), "its words"),
        ViewNode(DECISION, DECISION, True, (), "decide", HOSTILE, attention=(0.5, 0.25)),
    ),
    (
        Frame(2, HOSTILE, (
            ViewEdge(HOSTILE, DECISION, 0.75, kept=1.0, weight=0.75, bytes=2**20, slots=3, channel="cache"),
            ViewEdge(OTHER, HOSTILE, 0.5, kept=1.0, weight=0.5, bytes=2**19, slots=2),
            ViewEdge(HOSTILE, OTHER, 0.25, kept=0.0),
        )),
    ),
    question=HOSTILE, answer=HOSTILE, notes=(HOSTILE,),
)  # fmt: skip
