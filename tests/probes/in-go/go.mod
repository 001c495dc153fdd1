module example/probe

go 1.24

require witgate v0.0.0

replace witgate => ./build/witgate
