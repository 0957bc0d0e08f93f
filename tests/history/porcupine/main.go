// An independent judge: reads operations on registers as JSON lines, and says whether each register is linearizable.
//
// A line is {"key", "client", "call", "return", "kind", "value", "condition"}: kind is "write" or "read", value null
// where there is no row, and condition "", "absent", "present" or the value that must be there (no two writes of a
// key write the same). A write whose condition does not hold changes nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

type line struct {
	Key       string `json:"key"`
	Client    int    `json:"client"`
	Call      int64  `json:"call"`
	Return    int64  `json:"return"`
	Kind      string `json:"kind"`
	Value     *int64 `json:"value"`
	Condition string `json:"condition"`
}

type row struct {
	there bool
	value int64
}

func step(state, input, output any) (bool, any) {
	now, op := state.(row), input.(line)
	if op.Kind == "read" {
		if op.Value == nil {
			return !now.there, now
		}
		return now.there && now.value == *op.Value, now
	}
	switch op.Condition {
	case "":
	case "absent":
		if now.there {
			return true, now
		}
	case "present":
		if !now.there {
			return true, now
		}
	default:
		asked, _ := strconv.ParseInt(op.Condition, 10, 64)
		if !now.there || now.value != asked {
			return true, now
		}
	}
	if op.Value == nil {
		return true, row{}
	}
	return true, row{true, *op.Value}
}

func main() {
	histories := map[string][]porcupine.Operation{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		var op line
		if err := json.Unmarshal(lines.Bytes(), &op); err != nil {
			fmt.Println("error:", err)
			os.Exit(2)
		}
		histories[op.Key] = append(histories[op.Key],
			porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: op.Return})
	}
	model := porcupine.Model{Init: func() any { return row{} }, Step: step}
	keys := make([]string, 0, len(histories))
	for key := range histories {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	failed := 0
	for _, key := range keys {
		result := porcupine.CheckOperationsTimeout(model, histories[key], 60*time.Second)
		fmt.Printf("%s %s %d\n", result, key, len(histories[key]))
		if result != porcupine.Ok {
			failed = 1
		}
	}
	os.Exit(failed)
}
