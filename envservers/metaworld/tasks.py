"""MetaWorld's tasks as data: names and instructions. No simulator needed.

Names are those of `metaworld` 3.
"""

from __future__ import annotations

INSTRUCTIONS = {
    "assembly-v3": "lift the ring by its handle and slip it over the peg",
    "basketball-v3": "carry the ball to the hoop and drop it through",
    "bin-picking-v3": "take the cube out of the near bin and set it down in the other bin",
    "box-close-v3": "lift the lid and put it on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "reach over the wall and press the button from above",
    "button-press-v3": "push the button on the front of the box",
    "button-press-wall-v3": "go around the wall and push the button behind it",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine to the marked spot",
    "coffee-push-v3": "push the mug under the spout of the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "lift the ring off the peg",
    "door-close-v3": "push the open door shut",
    "door-lock-v3": "turn the lock of the door down to lock it",
    "door-open-v3": "pull the door open by its handle",
    "door-unlock-v3": "turn the lock of the door to unlock it",
    "drawer-close-v3": "push the drawer shut",
    "drawer-open-v3": "pull the drawer open",
    "faucet-close-v3": "turn the tap handle to shut the water off",
    "faucet-open-v3": "turn the tap handle to let the water run",
    "hammer-v3": "pick up the hammer and drive the nail into the wall",
    "hand-insert-v3": "lower the hand into the hole in the table",
    "handle-press-side-v3": "press the handle down from its side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from its side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "swing the lever up",
    "peg-insert-side-v3": "pick up the peg and push it into the hole in the side of the box",
    "peg-unplug-side-v3": "pull the plug out sideways",
    "pick-out-of-hole-v3": "take the puck out of the hole and hold it at the marked point",
    "pick-place-v3": "pick up the puck and hold it at the marked point",
    "pick-place-wall-v3": "pick up the puck and bring it over the wall to the marked point",
    "plate-slide-back-side-v3": "slide the plate out of the goal to the side",
    "plate-slide-back-v3": "slide the plate back out of the goal",
    "plate-slide-side-v3": "slide the plate sideways into the goal",
    "plate-slide-v3": "slide the plate forward into the goal",
    "push-back-v3": "pull the block back to the marked spot",
    "push-v3": "push the puck to the marked spot",
    "push-wall-v3": "push the block around the wall to the marked spot",
    "reach-v3": "move the hand to the marked point",
    "reach-wall-v3": "move the hand over the wall to the marked point",
    "shelf-place-v3": "pick up the block and put it on the shelf",
    "soccer-v3": "push the ball into the goal",
    "stick-pull-v3": "take the stick, hook it into the handle of the thermos and pull it close",
    "stick-push-v3": "take the stick and push the thermos with it to the marked spot",
    "sweep-into-v3": "sweep the block into the hole in the table",
    "sweep-v3": "sweep the block along the table to the marked spot",
    "window-close-v3": "slide the window shut",
    "window-open-v3": "slide the window open",
}
"""Task -> what the policy is told, our own words."""

TASKS = tuple(INSTRUCTIONS)
