module witgate

go 1.24
